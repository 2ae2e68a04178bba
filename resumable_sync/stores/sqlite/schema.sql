-- Schema version 1 of the SQLite store. One row of `streams` for each stream id, one row of `pages` for
-- each append (a large one is split). Boot clock: seconds of CLOCK_BOOTTIME, valid within one boot_id.

CREATE TABLE meta (
  last_generation INTEGER NOT NULL,   -- highest generation ever given out here: generations only grow
  stream_count INTEGER NOT NULL       -- rows in streams, so that a limit costs no scan
);

INSERT INTO meta VALUES (0, 0);

CREATE TABLE streams (
  stream_id TEXT PRIMARY KEY,
  generation INTEGER NOT NULL,
  status TEXT NOT NULL,
  size INTEGER NOT NULL,              -- bytes stored
  entries INTEGER NOT NULL,           -- chunks stored
  error TEXT,
  metadata TEXT NOT NULL,             -- JSON object, string to string
  ttl REAL NOT NULL,                  -- seconds
  owner TEXT NOT NULL,                -- the producing process: OWNER.lock beside the file is locked while it lives
  boot_id TEXT NOT NULL,              -- whose clock the next two columns are by: boot id, and time namespace if not the first
  lease_until REAL NOT NULL,          -- boot clock
  expires_boot REAL NOT NULL,         -- boot clock; decides where that clock is known
  expires_at REAL NOT NULL,           -- Unix seconds; decides elsewhere, as after a reboot
  created_at REAL NOT NULL,           -- Unix seconds, for people
  updated_at REAL NOT NULL,
  finished_at REAL
) WITHOUT ROWID;

CREATE INDEX running ON streams (owner) WHERE status = 'streaming';

CREATE TABLE pages (
  generation INTEGER NOT NULL,
  end INTEGER NOT NULL,               -- offset after the last byte of payload
  payload BLOB NOT NULL,              -- chunks, joined
  lengths BLOB,                       -- their lengths as little-endian uint32; NULL for a single chunk
  checksum INTEGER NOT NULL,          -- CRC-32 of payload and lengths, begun at end: SQLite itself verifies no content
  PRIMARY KEY (generation, end)
) WITHOUT ROWID;

CREATE TABLE trash (                  -- generations whose pages are to be deleted, in small steps
  generation INTEGER PRIMARY KEY
);
