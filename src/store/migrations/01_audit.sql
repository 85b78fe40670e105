-- One row an entry, from 1 without a gap. Every column is under the hash.
CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,   -- milliseconds since 1970, UTC
    kind    TEXT NOT NULL CHECK (kind IN ('event', 'intent', 'outcome')),
    intent  INTEGER,            -- of which intent this is the outcome
    actor   TEXT NOT NULL,
    address TEXT,
    action  TEXT NOT NULL,
    key     TEXT,
    reason  TEXT,
    outcome TEXT CHECK (outcome IN ('done', 'refused', 'failed', 'unknown')),
    detail  TEXT,
    before  TEXT,
    after   TEXT,
    hash    BLOB NOT NULL,
    seal    BLOB NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_intent ON audit (intent) WHERE intent IS NOT NULL;

-- The last entry, sealed, so that a tail that was cut off is missed.
CREATE TABLE audit_head (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    hash BLOB NOT NULL,
    seal BLOB NOT NULL
) STRICT;

-- The last entry that retention has cut away, sealed.
CREATE TABLE audit_checkpoint (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    seq  INTEGER NOT NULL,
    at   INTEGER NOT NULL,
    hash BLOB NOT NULL,
    seal BLOB NOT NULL
) STRICT;

-- Intents whose outcome is yet to be written.
CREATE TABLE audit_open (seq INTEGER PRIMARY KEY) STRICT;

CREATE TRIGGER audit_is_never_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_is_cut_up_to_its_checkpoint_alone BEFORE DELETE ON audit
WHEN OLD.seq > coalesce((SELECT seq FROM audit_checkpoint), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
