CREATE TABLE config_versions (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,   -- milliseconds since 1970, UTC
    actor   TEXT NOT NULL,
    address TEXT,
    source  TEXT NOT NULL,
    reason  TEXT,
    summary TEXT NOT NULL
) STRICT;

-- The files that a version changed; a file that is not here is that of the versions before.
CREATE TABLE config_texts (
    version  INTEGER NOT NULL REFERENCES config_versions DEFERRABLE INITIALLY DEFERRED,
    document TEXT NOT NULL CHECK (document IN ('settings', 'inventory')),
    text     TEXT NOT NULL,     -- secrets in encrypted form alone
    PRIMARY KEY (version, document)
) STRICT;
