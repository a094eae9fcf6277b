"""What to try: one module a kind of study, data only (`SPACE`, `OBJECTIVES`, `BASELINES`)."""
