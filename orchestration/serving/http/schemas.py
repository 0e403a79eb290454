"""Requests and answers of the API, as OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

GivenId = StrictInt | StrictStr


class RecommendRequest(BaseModel):
    """A list for a user of the snapshot, or after a history. Give one of the two."""

    model_config = ConfigDict(extra="forbid")
    user: GivenId | None = Field(None, description="A user id of the snapshot. An unknown one gets popular items.")
    history: list[GivenId] | None = Field(None, description="Item ids, oldest first. Items that the catalogue lacks are left out and counted.")
    k: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Places of the list [recommendations.k].")
    seen: Literal["keep", "remove"] | None = Field(None, description="Whether items of the history may be listed [recommendations.seen].")

    @model_validator(mode="after")
    def one_of_both(self) -> RecommendRequest:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either user or history")
        return self


class Champion(BaseModel):
    """What answered. Give `bundle_short` or `assignment_short` to `diger why` to see where a logged list came from."""

    entry: int = Field(description="The entry of the champion log.")
    bundle: str
    bundle_short: str
    assignment_hash: str
    assignment_short: str


class Item(BaseModel):
    item_id: int | str
    rank: int
    score: float | None = Field(description="Null: a popular item in a place that the mixture left empty.")


class Rule(BaseModel):
    rule: str
    items: int = Field(description="Items that it leaves out, raises (boost) or counts (at most).")


class RecommendAnswer(BaseModel):
    champion: Champion
    items: list[Item]
    events: int = Field(description="Events of the history that count.")
    unknown_items: int
    known_user: bool | None
    seen: Literal["keep", "remove"]
    rules: list[Rule] = Field(description="The rules that the list obeys (section rules of params.yaml).")


class SimilarItem(BaseModel):
    item_id: int | str
    title: str | None
    score: float


class SimilarAnswer(BaseModel):
    champion: Champion
    item_id: int | str
    title: str | None
    neighbours: list[SimilarItem]
    why: str | None = Field(description="What is missing where there are no neighbours.")


class Health(BaseModel):
    """`ok`; `degraded`: an earlier champion serves on, `problem` says why; `starting`: nothing serves yet (status 503)."""

    status: Literal["ok", "degraded", "starting"]
    problem: str | None
    champion: Champion | None


class Version(BaseModel):
    diger: str
    champion: Champion | None
    item_ids: Literal["integer", "string"] | None
    sources: dict[str, str | None] = Field(description="Hashes of the artefacts that lists are made of.")
    rules: list[Rule]
    seen: str | None = Field(description="Why seen items stay or are left out.")


class Refusal(BaseModel):
    detail: str
