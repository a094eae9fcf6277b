"""Frames in, frames out: what the tables of a study say."""
