"""The types of what `study.json` holds. What is not declared here may have any JSON value; no reader asks for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from study.records.columns import HISTORY_COLUMNS, TIME_COLUMNS, TRIAL_COLUMNS
from study.records.paths import name_problem

LARGEST = 2**53
"""Whole numbers up to here are exact as floats, too."""

RESERVED = {*TRIAL_COLUMNS, *HISTORY_COLUMNS, *TIME_COLUMNS, "seed", "threads"} - {"epochs"}
"""Columns of every table; nothing that is searched or measured can have their names."""


def _file_name(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(problem)
    return name


def _searchable(name: str) -> str:
    if name in RESERVED:
        raise ValueError("the tables have another column of that name")
    return name


def _scalar(value: Any) -> Any:
    if isinstance(value, int | float) and not -1e300 <= value <= 1e300 or isinstance(value, list | dict):
        raise ValueError("give one number, word or truth value")
    return value


Count = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Scalar = Annotated[Any, AfterValidator(_scalar)]
Name = Annotated[str, AfterValidator(_file_name)]
"""A baseline's, which files are called by."""
OptionalName = Literal[""] | Name
Searched = Annotated[str, AfterValidator(_searchable)]
Direction = Literal["max", "min"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Domain(_Part):
    """See `study.records.search_domains`; one that another harness wrote may have neither ends nor values."""

    type: Literal["float", "int", "choice"] | None = None
    low: Number | None = None
    high: Number | None = None
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    values: Annotated[list[Scalar], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_searchable(self) -> _Domain:
        if self.type is None and not (self.low is None and self.values is None):
            raise ValueError("a domain has a type")
        if self.type == "choice" and self.values is None:
            raise ValueError("a choice has values")
        if self.type in ("float", "int") and (self.low is None or self.high is None):
            raise ValueError("a range has low and high")
        if self.low is not None and self.high is not None:
            if self.low > self.high or self.log and self.low <= 0:
                raise ValueError("a range ascends, and a logarithmic one is above 0")
        elif (self.low is None) != (self.high is None):
            raise ValueError("a range has low and high")
        return self


class _Column(_Part):
    """See `study.records.columns.Column`."""

    label: str
    unit: str = ""
    digits: Annotated[int, Field(ge=0, le=20)] = 2
    scale: Literal["linear", "log", "complement"] = "linear"
    direction: Literal["", "max", "min"] = ""
    stands_in: str = ""
    phrase: str = ""
    tile: str = ""
    words: bool = False

    @model_validator(mode="after")
    def _phrase_takes_one_number(self) -> _Column:
        if set("{}") & set(self.phrase.replace("{}", "", 1)):
            raise ValueError("a phrase has one {}, for the number")
        return self


class _Network(_Part):
    name: str
    options: dict[str, Scalar] = {}
    parameters: Count | None = None


class _Data(_Part):
    name: str = ""
    title: str = ""
    shape: Annotated[list[Count], Field(min_length=1, max_length=4)] | None = None
    classes: list[str] = []
    train: Count = 0
    validation: Count = 0
    test: Count = 0
    split_seed: Count = 0
    mean: list[Number] | None = None
    std: list[Annotated[float, Field(gt=0, le=1e300)]] | None = None
    fingerprints: dict[str, str] = {}
    damaged_left_out: Count = 0
    note: str = ""


class _Settings(BaseModel):
    """Those that readers know by name; of the others, only that they are no lists and no objects."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    __pydantic_extra__: dict[str, Scalar] = Field(init=False)

    num_samples: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    min_accuracy: Annotated[float, Field(ge=0, le=100)] | None = None
    student_examples: Count | None = None
    seed: Count = 0


class _Run(_Part):
    """One command that continued a study."""

    command: str
    versions: dict[str, str]
    git_commit: str | None
    device: str
    created: str


class _AnySchema(_Part):
    """What `study.records.schema.upgrade` takes apart."""

    kind: str
    space: dict[str, dict[str, Any]]
    objectives: dict[str, str]
    baselines: dict[str, dict[str, Any]] = {}


class _StudyJson(_Part):
    """`study.json` after `study.records.schema.upgrade`."""

    kind: str
    name: str | None = None
    title: str
    subject: str
    reference: OptionalName
    shared_baseline: OptionalName
    replaced: list[str]
    dense: dict[str, str]
    headings: dict[str, str]
    counts_over: str | None = None
    columns: dict[str, _Column]
    space: dict[Searched, _Domain]
    objectives: Annotated[dict[Searched, Direction], Field(min_length=1)]
    baselines: dict[Name, dict[str, Scalar]] = {}
    models: dict[str, _Network] = {}
    data: _Data = _Data()
    settings: _Settings = _Settings()
    seed: Count
    shared_work: Annotated[str, Field(pattern="^[0-9a-f]{0,64}$")] = ""
    versions: dict[str, str] = {}
    command: str | None = None
    git_commit: str | None = None
    device: str | None = None
    created: str | None = None
    continued: list[_Run] = []

    @model_validator(mode="after")
    def _roles_are_there(self) -> _StudyJson:
        for baseline, role in self.dense.items():
            if self.models and role not in self.models:
                raise ValueError(f"dense names {role!r} for {baseline!r}, which models lacks")
        return self


def problem_before_upgrade(meta: dict[str, Any]) -> str:
    """See `problem_of`, of a `study.json` of any schema."""
    return _problem(_AnySchema, meta)


def problem_of(meta: dict[str, Any]) -> str:
    """What is wrong with the types of a `study.json`, as "settings.seed: input should be …"; "" where nothing is."""
    return _problem(_StudyJson, meta)


def _problem(model: type[BaseModel], meta: dict[str, Any]) -> str:
    try:
        model.model_validate(meta)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message[:1].lower()}{message[1:]}" if place else message
    return ""
