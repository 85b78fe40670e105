CREATE TABLE users (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT NOT NULL UNIQUE,
    role            TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    password        TEXT NOT NULL,      -- argon2id, as a PHC string
    password_set_at INTEGER NOT NULL,   -- milliseconds since 1970, UTC
    created_at      INTEGER NOT NULL,
    created_by      TEXT NOT NULL,
    last_sign_in    INTEGER,
    last_address    TEXT
) STRICT;

CREATE TABLE sessions (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sha256     BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    last_used  INTEGER NOT NULL,
    address    TEXT,
    agent      TEXT
) STRICT;

CREATE INDEX sessions_by_user ON sessions (user_id);

-- The setup token of a daemon that has no user yet.
CREATE TABLE setup (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    sha256     BLOB NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
