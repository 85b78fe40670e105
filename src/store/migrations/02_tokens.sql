CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT NOT NULL UNIQUE,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    sha256     BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,   -- milliseconds since 1970, UTC
    created_by TEXT NOT NULL,
    expires_at INTEGER,
    last_used  INTEGER
) STRICT;
