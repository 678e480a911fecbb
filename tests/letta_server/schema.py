"""The tables that Letta's migrations would make, which its wheel doesn't ship. Run with its
environment, ``LETTA_PG_URI`` included."""

import os
import time

import letta.orm  # noqa: F401  # it declares the tables
from letta.orm.base import Base
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

uri = os.environ["LETTA_PG_URI"].replace("postgresql://", "postgresql+psycopg2://")
engine = create_engine(uri)
until = time.monotonic() + 60
while True:
    try:
        engine.connect().close()
        break
    except OperationalError:  # it starts
        if time.monotonic() > until:
            raise
        time.sleep(0.05)
with engine.begin() as connection:
    connection.execute(text("CREATE EXTENSION vector"))
    Base.metadata.create_all(connection)
    # A default that only the migrations have. Without it every message is refused.
    connection.execute(text("CREATE SEQUENCE message_order OWNED BY messages.sequence_id"))
    connection.execute(
        text("ALTER TABLE messages ALTER sequence_id SET DEFAULT nextval('message_order')")
    )
