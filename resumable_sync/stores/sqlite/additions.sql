-- What the second edition of the contract adds to schema version 1: to a new file at once, and to one of the first
-- edition by whichever process opens it first, while others of that edition may go on with it. They name the columns
-- that they read and write, and so find everything as it was. What they must not do with a new kind of stream
-- follows from the old columns:
-- - With a handover, `lease_until` is the end of the handover (the lease ends `handover` seconds before it), and
--   `owner` is empty: no free lock file ends the stream.
-- - A shared stream has no owner, and a `lease_until` that never comes.

ALTER TABLE streams ADD COLUMN fence TEXT NOT NULL DEFAULT '';          -- token of the present term; empty: of edition 1
ALTER TABLE streams ADD COLUMN producer TEXT NOT NULL DEFAULT '';       -- as owner, with a handover; empty: it let go
ALTER TABLE streams ADD COLUMN handover REAL NOT NULL DEFAULT 0.0;      -- seconds
ALTER TABLE streams ADD COLUMN term INTEGER NOT NULL DEFAULT 1;         -- 0: the stream is shared
ALTER TABLE streams ADD COLUMN term_begin INTEGER NOT NULL DEFAULT 0;   -- size at its begin; -1: it stored a note
ALTER TABLE streams ADD COLUMN empty_terms INTEGER NOT NULL DEFAULT 0;  -- in a row, right before this one
ALTER TABLE streams ADD COLUMN sliding INTEGER NOT NULL DEFAULT 1;      -- whether signs of life renew the ttl

CREATE INDEX continuable ON streams (producer) WHERE status = 'streaming' AND handover > 0;
CREATE INDEX by_status ON streams (status);

CREATE TABLE notes (
  stream_id TEXT NOT NULL,
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (stream_id, name)
) WITHOUT ROWID;

CREATE TRIGGER notes_go_with_their_stream AFTER DELETE ON streams BEGIN
  DELETE FROM notes WHERE stream_id = OLD.stream_id;
END;
