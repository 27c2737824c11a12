BEGIN TRANSACTION;
CREATE TABLE campaign (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "campaign" VALUES(1,'digits',1.79567616319298291207e+09);
CREATE TABLE checkpoint (
	trial_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	position SMALLINT NOT NULL, 
	file_id INTEGER NOT NULL, 
	member TEXT NOT NULL, 
	value_kind TEXT, 
	value DOUBLE, 
	PRIMARY KEY (trial_id, kind, step), 
	FOREIGN KEY(trial_id) REFERENCES trial (id), 
	FOREIGN KEY(file_id) REFERENCES checkpoint_file (id)
);
INSERT INTO "checkpoint" VALUES(1,'best',100,0,1,'','finite',0.4);
INSERT INTO "checkpoint" VALUES(1,'latest',100,1,2,'','finite',0.4);
INSERT INTO "checkpoint" VALUES(2,'best',50,0,3,'','finite',0.75);
INSERT INTO "checkpoint" VALUES(2,'latest',50,1,4,'','finite',0.75);
CREATE TABLE checkpoint_file (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	num_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "checkpoint_file" VALUES(1,'digits/round-1/trial-00000/best-000000100-1.safetensors','abababababababababababababababababababababababababababababababab',1000);
INSERT INTO "checkpoint_file" VALUES(2,'digits/round-1/trial-00000/latest-000000100-1.pt','abababababababababababababababababababababababababababababababab',1000);
INSERT INTO "checkpoint_file" VALUES(3,'digits/round-1/trial-00001/best-000000050-1.safetensors','abababababababababababababababababababababababababababababababab',1000);
INSERT INTO "checkpoint_file" VALUES(4,'digits/round-1/trial-00001/latest-000000050-1.pt','abababababababababababababababababababababababababababababababab',1000);
CREATE TABLE conclusion (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	study_id INTEGER, 
	kind TEXT NOT NULL, 
	data TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(campaign_id) REFERENCES campaign (id), 
	FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "conclusion" VALUES(1,1,1,'budget','{"origin": "given on the command line"}',1.79567616334100055696e+09);
CREATE TABLE launch (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	started DOUBLE NOT NULL, 
	command TEXT NOT NULL, 
	revision TEXT NOT NULL, 
	environment TEXT NOT NULL, 
	worker TEXT NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(study_id) REFERENCES study (id)
);
CREATE TABLE measurement (
	trial_id INTEGER NOT NULL, 
	metric_id INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	value_kind TEXT NOT NULL, 
	value DOUBLE, 
	PRIMARY KEY (trial_id, metric_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trial (id), 
	FOREIGN KEY(metric_id) REFERENCES metric (id)
)
 WITHOUT ROWID

;
INSERT INTO "measurement" VALUES(1,1,50,'finite',0.25);
INSERT INTO "measurement" VALUES(1,1,100,'nan',NULL);
INSERT INTO "measurement" VALUES(1,2,50,'finite',0.5);
INSERT INTO "measurement" VALUES(1,2,100,'finite',0.4);
INSERT INTO "measurement" VALUES(2,1,50,'finite',0.25);
INSERT INTO "measurement" VALUES(2,2,50,'finite',0.75);
CREATE TABLE metric (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "metric" VALUES(1,'training/error_rate');
INSERT INTO "metric" VALUES(2,'validation/loss');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	applied DOUBLE NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(1,1.79567616317499876028e+09);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	round INTEGER, 
	declaration TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (campaign_id, name), 
	FOREIGN KEY(campaign_id) REFERENCES campaign (id)
);
INSERT INTO "study" VALUES(1,1,'round-1','round',1,'{"name": "round-1", "kind": "round", "goal": "Which learning rate?", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.0001, "high": 0.1, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}], "fixed": [], "budget": {"max_train_steps": 100, "evaluate_every": 50}, "num_trials": 2, "objective": {"metric": "validation/loss", "direction": "minimize"}, "fitted_when": {"metric": "training/error_rate", "side": "at_most", "threshold": 0.0}, "optimizer": "adamw", "schedule": {"name": "constant_then_decay", "decay": 0.2, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 10, "batch_size": 64, "seed": 3, "keep_best": 1, "augment": true, "round": 1, "lineage": [], "scientific": [], "source": ""}','fingerprint of version 1',1.79567616319499468802e+09);
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	point TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	data_seed BIGINT NOT NULL, 
	schedule TEXT NOT NULL, 
	origin TEXT NOT NULL, 
	shape_group TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	fence BIGINT NOT NULL, 
	worker TEXT, 
	lease_seconds DOUBLE, 
	lease_until DOUBLE, 
	numerics TEXT, 
	started DOUBLE, 
	finished DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (study_id, number), 
	CONSTRAINT trial_state_is_known CHECK (state IN ('waiting', 'running', 'complete', 'infeasible', 'failed', 'cancelled')), 
	CONSTRAINT trial_running_has_lease CHECK (state <> 'running' OR lease_until IS NOT NULL), 
	FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "trial" VALUES(1,1,0,'complete','','{"learning_rate": 0.01}',11,5,'{"pieces": [{"shape": "warmup", "steps": 10, "start": 1.0, "end": 1.0}, {"shape": "constant", "steps": 70, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 20, "start": 1.0, "end": 0.0}]}','quasi-random 0','adamw batch_size=64 learning_rate',100,1,1,NULL,NULL,NULL,'{"engine": "module"}',1.79567616328901958461e+09,1.79567616330998086927e+09);
INSERT INTO "trial" VALUES(2,1,1,'waiting','','{"learning_rate": 0.003}',12,5,'{"pieces": [{"shape": "warmup", "steps": 10, "start": 1.0, "end": 1.0}, {"shape": "constant", "steps": 70, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 20, "start": 1.0, "end": 0.0}]}','quasi-random 1','adamw batch_size=64 learning_rate',50,0,1,NULL,NULL,NULL,'{"engine": "module"}',1.79567616328901958461e+09,NULL);
CREATE INDEX trial_by_state ON trial (study_id, state, number);
CREATE INDEX ix_launch_study_id ON launch (study_id);
CREATE INDEX conclusion_by_kind ON conclusion (campaign_id, kind);
CREATE INDEX ix_checkpoint_file_id ON checkpoint (file_id);
COMMIT;
