"""What a plugin of Broca is, as far as its manager asks."""

from abc import ABC, abstractmethod
from enum import Enum, auto


class EventType(Enum):
    """The kinds of events, of which none is ever emitted."""

    MESSAGE = auto()


class Event:
    """An event."""


class Plugin(ABC):
    """Without one of these methods a plugin can't be made."""

    @abstractmethod
    async def start(self): ...

    @abstractmethod
    async def stop(self): ...

    @abstractmethod
    def get_name(self): ...

    @abstractmethod
    def get_platform(self): ...

    @abstractmethod
    def get_message_handler(self): ...

    @abstractmethod
    def register_event_handler(self, event_type, handler): ...

    @abstractmethod
    def emit_event(self, event): ...
