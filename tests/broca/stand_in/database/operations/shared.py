"""Where the database is, and its tables."""

import os
import sqlite3

TABLES = """
    CREATE TABLE IF NOT EXISTS letta_users (
        id INTEGER PRIMARY KEY AUTOINCREMENT, created_at TEXT DEFAULT CURRENT_TIMESTAMP,
        last_active TEXT, letta_identity_id TEXT, letta_block_id TEXT, agent_preferences TEXT,
        custom_instructions TEXT, is_active INTEGER DEFAULT 1
    );
    CREATE TABLE IF NOT EXISTS platform_profiles (
        id INTEGER PRIMARY KEY AUTOINCREMENT, letta_user_id INTEGER REFERENCES letta_users(id),
        platform TEXT, platform_user_id TEXT, username TEXT, display_name TEXT, metadata TEXT,
        created_at TEXT DEFAULT CURRENT_TIMESTAMP, last_active TEXT,
        UNIQUE (platform, platform_user_id)
    );
    CREATE TABLE IF NOT EXISTS messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT, letta_user_id INTEGER REFERENCES letta_users(id),
        platform_profile_id INTEGER REFERENCES platform_profiles(id), role TEXT, message TEXT,
        timestamp TEXT, processed INTEGER DEFAULT 0, agent_response TEXT
    );
    CREATE TABLE IF NOT EXISTS queue (
        id INTEGER PRIMARY KEY AUTOINCREMENT, letta_user_id INTEGER REFERENCES letta_users(id),
        message_id INTEGER REFERENCES messages(id), status TEXT, attempts INTEGER DEFAULT 0,
        timestamp TEXT DEFAULT CURRENT_TIMESTAMP
    );
"""


def get_db_path():
    return os.environ.get("TEST_DB_PATH") or os.environ.get("DB_PATH") or "sanctum.db"


def connect():
    connection = sqlite3.connect(get_db_path(), isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


async def initialize_database():
    connection = connect()
    connection.executescript(TABLES)
    connection.close()
