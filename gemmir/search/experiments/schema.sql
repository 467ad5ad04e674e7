-- Version 1 of the file of an experiment. docs/experiments.md explains it.
-- JSON is in columns whose comment says so; times of day are ISO 8601 in UTC; NULL is "not known".

CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL,                     -- of the experiment
  created TEXT NOT NULL,
  spec TEXT NOT NULL,                     -- the TOML text
  settings TEXT NOT NULL,                 -- JSON: what the text and the defaults say
  plan TEXT NOT NULL,                     -- hash of every cell and its place in the order
  seed INTEGER NOT NULL,                  -- of the operands and of the order
  repetitions INTEGER NOT NULL,
  rounds INTEGER NOT NULL,
  threads INTEGER NOT NULL,
  cpus TEXT NOT NULL                      -- JSON: the CPUs that are measured on
) STRICT;

CREATE TABLE problems (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs,
  name TEXT NOT NULL,
  gemm TEXT NOT NULL,                     -- JSON: the fields of gemmir.Gemm
  flops INTEGER NOT NULL,
  bytes INTEGER NOT NULL,                 -- moved if each operand is moved once
  UNIQUE (run, name)
) STRICT;

CREATE TABLE contestants (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs,
  name TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('schedule', 'peer', 'peak')),
  space TEXT,                             -- the file of the space that it is a point of
  point TEXT,                             -- JSON: the values of its holes
  UNIQUE (run, name)
) STRICT;

-- What is measured, in each repetition once.
CREATE TABLE points (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs,
  problem INTEGER NOT NULL REFERENCES problems,
  target TEXT NOT NULL,
  contestant INTEGER NOT NULL REFERENCES contestants,
  objective TEXT NOT NULL CHECK (objective IN ('time', 'static')),
  schedule TEXT,                          -- passes; NULL is the default schedule, or no schedule
  UNIQUE (run, problem, target, contestant)
) STRICT;

-- Each time that a process measures, under the same or another command.
CREATE TABLE sessions (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs,
  started TEXT NOT NULL,
  ended TEXT,                             -- NULL where it was killed, or goes on
  command TEXT NOT NULL,
  revision TEXT,                          -- git commit of gemmir's files
  is_dirty INTEGER                        -- whether one of them differs from it
) STRICT;

-- Who measured: this computer, or a worker of a cluster.
CREATE TABLE workers (
  id INTEGER PRIMARY KEY,
  session INTEGER NOT NULL REFERENCES sessions,
  name TEXT NOT NULL,
  host TEXT NOT NULL,
  cpu TEXT NOT NULL,
  cpus INTEGER NOT NULL,
  system TEXT NOT NULL,
  versions TEXT NOT NULL,                 -- JSON
  source TEXT NOT NULL,                   -- hash of gemmir's files
  UNIQUE (session, name)
) STRICT;

-- One repetition of a point. All are there before the first is measured; those with a status are done.
CREATE TABLE cells (
  id INTEGER PRIMARY KEY,
  run INTEGER NOT NULL REFERENCES runs,
  point INTEGER NOT NULL REFERENCES points,
  repetition INTEGER NOT NULL,
  position INTEGER NOT NULL,              -- in the order of measuring
  status TEXT CHECK (status IN
    ('ok', 'illegal', 'wrong', 'unable', 'timeout', 'crashed', 'impossible')),
  detail TEXT,                            -- why it is not ok
  worker INTEGER REFERENCES workers,
  started TEXT,
  ended TEXT,
  took_seconds REAL,                      -- to start, compile, check and time it
  error_ratio REAL,                       -- largest error over its a-priori bound; above 1 is wrong
  steps TEXT,                             -- JSON: the passes that ran
  about TEXT,                             -- JSON: what a library says of itself
  UNIQUE (run, position),
  UNIQUE (point, repetition),
  CHECK ((status IS NULL) = (worker IS NULL))
) STRICT;

CREATE TABLE samples (
  cell INTEGER NOT NULL REFERENCES cells,
  round INTEGER NOT NULL,
  wall_seconds REAL NOT NULL,             -- of one call
  cpu_seconds REAL NOT NULL,              -- of one call, of the whole process
  calls INTEGER NOT NULL,                 -- made in this sample
  PRIMARY KEY (cell, round)
) STRICT, WITHOUT ROWID;

-- Figures that are not timed: of the compiled code, of a profiler, of a model.
CREATE TABLE figures (
  cell INTEGER NOT NULL REFERENCES cells,
  name TEXT NOT NULL,
  value REAL NOT NULL,
  unit TEXT NOT NULL,
  PRIMARY KEY (cell, name)
) STRICT, WITHOUT ROWID;

-- The machine before and after a cell.
CREATE TABLE states (
  cell INTEGER NOT NULL REFERENCES cells,
  moment TEXT NOT NULL CHECK (moment IN ('before', 'after')),
  load_average REAL,                      -- of the last minute
  mhz REAL,                               -- mean of the CPUs in affinity
  celsius REAL,
  governor TEXT,
  affinity TEXT NOT NULL,                 -- JSON: the CPUs that the process may use
  steal_seconds REAL,                     -- of those CPUs, since the machine was started
  PRIMARY KEY (cell, moment)
) STRICT, WITHOUT ROWID;

-- Every sample with all that it is of. `seconds` is CPU time on one thread, wall time on several.
CREATE VIEW times AS
SELECT runs.id AS run, runs.name AS experiment, problems.name AS problem, problems.gemm AS gemm,
  problems.flops AS flops, points.target AS target, contestants.name AS contestant,
  contestants.kind AS kind, contestants.point AS point, points.schedule AS schedule,
  cells.steps AS steps, cells.repetition AS repetition, cells.position AS position,
  samples.round AS round,
  CASE WHEN runs.threads = 1 THEN samples.cpu_seconds ELSE samples.wall_seconds END AS seconds,
  samples.wall_seconds AS wall_seconds, samples.cpu_seconds AS cpu_seconds, samples.calls AS calls,
  workers.name AS worker, workers.host AS host, workers.cpu AS cpu, cells.started AS started
FROM samples JOIN cells ON cells.id = samples.cell JOIN points ON points.id = cells.point
  JOIN problems ON problems.id = points.problem
  JOIN contestants ON contestants.id = points.contestant
  JOIN runs ON runs.id = cells.run JOIN workers ON workers.id = cells.worker;
