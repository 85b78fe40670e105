-- Instances that files of other tools held are kept too.
CREATE TABLE config_texts_with_provided (
    version  INTEGER NOT NULL REFERENCES config_versions DEFERRABLE INITIALLY DEFERRED,
    document TEXT NOT NULL CHECK (document IN ('settings', 'inventory', 'provided')),
    text     TEXT NOT NULL,     -- secrets in encrypted form alone
    PRIMARY KEY (version, document)
) STRICT;

INSERT INTO config_texts_with_provided SELECT version, document, text FROM config_texts;
DROP TABLE config_texts;
ALTER TABLE config_texts_with_provided RENAME TO config_texts;
