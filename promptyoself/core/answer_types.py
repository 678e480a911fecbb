"""Types that the answers of several subjects share.

The text of an ``Annotated`` type is the description that JSON schemas have of it. The modules named
``answers`` have the types of what services answer; answers stay plain dictionaries.
"""

from typing import Annotated

AnswerMessage = Annotated[str, "What was done, in a sentence."]
Counts = dict[str, int]
DesireId = Annotated[str, "The desire's id: des_ and 8 hex digits."]
HeadText = Annotated[str, "The last event as SEQ:HASH."]
Instant = Annotated[str, "An instant in UTC: 2027-01-31T09:00:00.000000Z."]
ScheduleId = Annotated[str, "The schedule's id: sch_ and 8 hex digits."]
Total = Annotated[int, "How many there are, where some were left out."]
