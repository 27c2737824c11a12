BEGIN TRANSACTION;
CREATE TABLE campaign (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "campaign" VALUES(1,'old_study',1.79598133414600801471e+09);
CREATE TABLE checkpoint (
	trial_id INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	step BIGINT NOT NULL, 
	position SMALLINT NOT NULL, 
	file_id INTEGER NOT NULL, 
	member TEXT NOT NULL, 
	value_kind TEXT, 
	value DOUBLE, 
	prefix_base TEXT, 
	prefix_path TEXT, 
	prefix_numerics TEXT, 
	PRIMARY KEY (trial_id, kind, step), 
	FOREIGN KEY(trial_id) REFERENCES trial (id), 
	FOREIGN KEY(file_id) REFERENCES checkpoint_file (id)
);
INSERT INTO "checkpoint" VALUES(1,'best',15,0,1,'','finite',2.31278342221230559516e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(1,'latest',20,1,2,'','finite',2.42885365150868892669e-01,'3c6b2ad35ecdc414cd2d95c618a71dc32736f3982654377b7750e425c64ab211','101d8ad3245c78b0fa6f695b8e95af77804bb9c6e7fdf1234375087e51771223','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(1,'trunk',16,2,3,'',NULL,NULL,'3c6b2ad35ecdc414cd2d95c618a71dc32736f3982654377b7750e425c64ab211','8a8b7839e5bbb540f94532c6777b07e2bf155469d85f29834904035385b3245e','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(2,'best',20,0,4,'','finite',1.66520820822916,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(2,'latest',20,1,5,'','finite',1.66520820822916,'38f74f288c103f1bb967254502c58014bc56b11141c3ce4f74b9c363b25bd046','152fb4aad9244f740cab98a232f8ad9ab1ab418296ffc25ebefcdc40c7bf488b','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(2,'trunk',16,2,6,'',NULL,NULL,'38f74f288c103f1bb967254502c58014bc56b11141c3ce4f74b9c363b25bd046','e11b4752f1d9e35092dcb26de3a9c5e3e14c93df6cbe1c9b85d13662b789a4a9','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
CREATE TABLE checkpoint_file (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	num_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "checkpoint_file" VALUES(1,'old_study/round-1/trial-00000/best-000000015-1.safetensors','04396b573095a1164cb7709caf5a12214eca1cfb9a76c7c0511165c90383fbc5',144);
INSERT INTO "checkpoint_file" VALUES(2,'old_study/round-1/trial-00000/latest-000000020-1.pt','7764960935bd1a4de0de46c4622b5040368ef703ba6bd7197f8815210d4588f5',4169);
INSERT INTO "checkpoint_file" VALUES(3,'old_study/round-1/trial-00000/trunk-000000016-1.pt','a850f973b50bf3d15bbbd00c32e295da5885e270bca70d07c8108eb4def4a559',4738);
INSERT INTO "checkpoint_file" VALUES(4,'old_study/round-1/trial-00001/best-000000020-1.safetensors','224d1bda80f326305d9c3b0b8a2986e0b40ec1f2254669dadf085a68c1a55337',144);
INSERT INTO "checkpoint_file" VALUES(5,'old_study/round-1/trial-00001/latest-000000020-1.pt','4609695fba76f8fbd29f25526256263fd97b345fe1daaac2dce3ec15bb3df57f',4169);
INSERT INTO "checkpoint_file" VALUES(6,'old_study/round-1/trial-00001/trunk-000000016-1.pt','dd01aaa2be855282ab2dbe77bfc97882906ffc43cc9a7a854f6043a399701a12',4738);
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
INSERT INTO "conclusion" VALUES(1,1,1,'budget','{"origin": "declared in the study file", "source": null, "basis": {"batch_size": "8", "optimizer": "adamw", "schedule": "constant_then_decay 0.2 to 0, warmup 0", "architecture": "748a4dff5e5e6cfa", "loss": "359f1eb3382cf723", "augmentation": "d36254a75f384a15", "training data": "49684200e971e54e", "validation data": "132a824c53346a72"}}',1.7959813341590032577e+09);
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
INSERT INTO "launch" VALUES(1,1,1.79598133417501592632e+09,'__main__.py launch old_study.py --round 1','{}','{"python": "3.11.7", "platform": "Linux", "host": "host", "cores": 2, "versions": {"tuner": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6", "scipy": "1.17.1", "pandas": "3.1.1", "sqlalchemy": "2.1.9"}, "study_file": "old_study.py", "data": {}}','host:3138:83bb19cf');
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
INSERT INTO "measurement" VALUES(1,1,5,'finite',2.00569438934326171875e+00);
INSERT INTO "measurement" VALUES(1,1,10,'finite',3.06398820877075195312e+00);
INSERT INTO "measurement" VALUES(1,1,15,'finite',4.41103875637054443359e-01);
INSERT INTO "measurement" VALUES(1,1,20,'finite',9.82146739959716796875e-01);
INSERT INTO "measurement" VALUES(1,2,5,'finite',2.51752635240554800688e+00);
INSERT INTO "measurement" VALUES(1,2,10,'finite',1.08880856037139883696e+00);
INSERT INTO "measurement" VALUES(1,2,15,'finite',2.44319461286067962646e-01);
INSERT INTO "measurement" VALUES(1,2,20,'finite',1.87184216827154165097e-01);
INSERT INTO "measurement" VALUES(1,3,5,'finite',1.43087849129278765758e+00);
INSERT INTO "measurement" VALUES(1,3,10,'finite',4.04783395733829820528e-01);
INSERT INTO "measurement" VALUES(1,3,15,'finite',1.86565987638346086896e-01);
INSERT INTO "measurement" VALUES(1,3,20,'finite',2.02334398007224081084e-01);
INSERT INTO "measurement" VALUES(1,4,5,'finite',1.68503067282381380209e+00);
INSERT INTO "measurement" VALUES(1,4,10,'finite',4.98711929328923275761e-01);
INSERT INTO "measurement" VALUES(1,4,15,'finite',2.31278342221230559516e-01);
INSERT INTO "measurement" VALUES(1,4,20,'finite',2.42885365150868892669e-01);
INSERT INTO "measurement" VALUES(2,1,5,'finite',1.75581908226013183593e+00);
INSERT INTO "measurement" VALUES(2,1,10,'finite',4.72553157806396484375e+00);
INSERT INTO "measurement" VALUES(2,1,15,'finite',4.04563426971435546875e+00);
INSERT INTO "measurement" VALUES(2,1,20,'finite',2.82985711097717285156e+00);
INSERT INTO "measurement" VALUES(2,2,5,'finite',2.67455554008483886718e+00);
INSERT INTO "measurement" VALUES(2,2,10,'finite',3.22008109092712402343e+00);
INSERT INTO "measurement" VALUES(2,2,15,'finite',2.61567881107330313383e+00);
INSERT INTO "measurement" VALUES(2,2,20,'finite',2.02290987968444824218e+00);
INSERT INTO "measurement" VALUES(2,3,5,'finite',2.82217587118520896183e+00);
INSERT INTO "measurement" VALUES(2,3,10,'finite',2.59165550738907768391e+00);
INSERT INTO "measurement" VALUES(2,3,15,'finite',2.37514713033306179568e+00);
INSERT INTO "measurement" VALUES(2,3,20,'finite',2.23630388196761487051e+00);
INSERT INTO "measurement" VALUES(2,4,5,'finite',2.15588221694633830338e+00);
INSERT INTO "measurement" VALUES(2,4,10,'finite',1.96318427518417593091e+00);
INSERT INTO "measurement" VALUES(2,4,15,'finite',1.78097540022281464189e+00);
INSERT INTO "measurement" VALUES(2,4,20,'finite',1.66520820822916);
CREATE TABLE metric (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "metric" VALUES(1,'batch/gradient_norm');
INSERT INTO "metric" VALUES(2,'batch/loss');
INSERT INTO "metric" VALUES(3,'training/loss');
INSERT INTO "metric" VALUES(4,'validation/loss');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	applied DOUBLE NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(2,1.7959813341050102711e+09);
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
INSERT INTO "study" VALUES(1,1,'round-1','round',1,'{"name": "round-1", "kind": "round", "goal": "q", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.001, "high": 0.1, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}], "fixed": [], "budget": {"max_train_steps": 20, "evaluate_every": 5, "early": []}, "num_trials": 2, "objective": {"metric": "validation/loss", "direction": "minimize"}, "fitted_when": null, "optimizer": "adamw", "schedule": {"name": "constant_then_decay", "decay": 0.2, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 0, "batch_size": 8, "seed": 5857228154237252844, "keep_best": 1, "augment": true, "round": 1, "lineage": [], "scientific": [], "source": "", "sampler": "", "batch": 0}','4c07e47b5407b3e60f58910e4101850eb94ac33b15e98435085970dff7f5d895',1.79598133414801955226e+09);
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
	pins TEXT DEFAULT '[]' NOT NULL, 
	inherited_steps BIGINT DEFAULT '0' NOT NULL, 
	inherited_from INTEGER, 
	started DOUBLE, 
	finished DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (study_id, number), 
	CONSTRAINT trial_state_is_known CHECK (state IN ('waiting', 'running', 'complete', 'infeasible', 'failed', 'cancelled')), 
	CONSTRAINT trial_running_has_lease CHECK (state <> 'running' OR lease_until IS NOT NULL), 
	FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "trial" VALUES(1,1,0,'complete','','{"learning_rate": 0.09443818707520696}',5937078713313267817,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 16, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 4, "start": 1.0, "end": 0.0}]}','quasi-random 0','adamw batch_size=8 learning_rate',20,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[16]',0,NULL,1.79598133418398809429e+09,1.79598133421098446853e+09);
INSERT INTO "trial" VALUES(2,1,1,'complete','','{"learning_rate": 0.009443818707520693}',2221846673319826639,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 16, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 4, "start": 1.0, "end": 0.0}]}','quasi-random 1','adamw batch_size=8 learning_rate',20,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[16]',0,NULL,1.79598133421500778198e+09,1.79598133423001480105e+09);
CREATE INDEX trial_by_state ON trial (study_id, state, number);
CREATE INDEX ix_launch_study_id ON launch (study_id);
CREATE INDEX conclusion_by_kind ON conclusion (campaign_id, kind);
CREATE INDEX checkpoint_by_prefix ON checkpoint (prefix_base);
CREATE INDEX ix_checkpoint_file_id ON checkpoint (file_id);
COMMIT;