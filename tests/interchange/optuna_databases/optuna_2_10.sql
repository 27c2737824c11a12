-- A study of six trials as Optuna 2.10.1 stored it (schema v2.6.0.a), with one pruned trial and one infinite value.
-- Made with: pip install optuna==2.10.1 'sqlalchemy<2'; python make_older.py older.db; sqlite3 older.db .dump
--   make_older.py: suggest_loguniform("lr", 1e-4, 1), suggest_uniform("dropout", 0, 0.5), suggest_int("layers", 1, 4),
--   suggest_categorical("act", ["relu", None, True]), suggest_discrete_uniform("q", 0, 1, 0.25); four reports a trial;
--   RandomSampler(seed=0), study "old". Infinity is written 9e999, which SQLite reads as such.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'old');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,4.89571588395813550587e-01);
INSERT INTO "trial_intermediate_values" VALUES(2,1,2,2.5702743046098391888e-01);
INSERT INTO "trial_intermediate_values" VALUES(3,1,3,1.71479215592235167964e-01);
INSERT INTO "trial_intermediate_values" VALUES(4,1,4,1.40007786113105409109e-01);
INSERT INTO "trial_intermediate_values" VALUES(5,2,1,7.37548744810840872787e-01);
INSERT INTO "trial_intermediate_values" VALUES(6,2,2,5.05004586876011241081e-01);
INSERT INTO "trial_intermediate_values" VALUES(7,2,3,4.19456372007262490164e-01);
INSERT INTO "trial_intermediate_values" VALUES(8,2,4,3.87984942528132703554e-01);
INSERT INTO "trial_intermediate_values" VALUES(9,3,1,7.64473775050231285632e-01);
INSERT INTO "trial_intermediate_values" VALUES(10,3,2,5.31929617115401764948e-01);
INSERT INTO "trial_intermediate_values" VALUES(11,4,1,6.22609779698504173239e-01);
INSERT INTO "trial_intermediate_values" VALUES(12,4,2,3.90065621763674486022e-01);
INSERT INTO "trial_intermediate_values" VALUES(13,4,3,3.04517406894925735105e-01);
INSERT INTO "trial_intermediate_values" VALUES(14,4,4,9e999);
INSERT INTO "trial_intermediate_values" VALUES(15,5,1,4.79009748332476892329e-01);
INSERT INTO "trial_intermediate_values" VALUES(16,5,2,2.46465590397647260623e-01);
INSERT INTO "trial_intermediate_values" VALUES(17,5,3,1.60917375528898481951e-01);
INSERT INTO "trial_intermediate_values" VALUES(18,5,4,1.29445946049768723096e-01);
INSERT INTO "trial_intermediate_values" VALUES(19,6,1,5.05322810515164810851e-01);
INSERT INTO "trial_intermediate_values" VALUES(20,6,2,2.72778652580335179145e-01);
INSERT INTO "trial_intermediate_values" VALUES(21,6,3,1.87230437711586400473e-01);
INSERT INTO "trial_intermediate_values" VALUES(22,6,4,1.55759008232456641618e-01);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'lr',1.56766771955060696397e-02,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(2,1,'dropout',3.5759468318620973859e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(3,1,'layers',3.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(4,1,'act',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(5,1,'q',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(6,2,'lr',3.69055772921375868644e-01,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(7,2,'dropout',4.81831380250514640373e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(8,2,'layers',2.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(9,2,'act',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(10,2,'q',1.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(11,3,'lr',1.92373050965465079925e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(12,3,'dropout',4.35646498507703539004e-02,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(13,3,'layers',1.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(14,3,'act',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(15,3,'q',1.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(16,4,'lr',1.57265788541794959698e-01,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(17,4,'dropout',2.30739681126465923099e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(18,4,'layers',4.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(19,4,'act',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(20,4,'q',1.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(21,5,'lr',1.22290659470343614223e-02,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(22,5,'dropout',2.07330969995261793492e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(23,5,'layers',2.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(24,5,'act',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(25,5,'q',0.0,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
INSERT INTO "trial_params" VALUES(26,6,'lr',2.95489455872668428659e-02,'{"name": "LogUniformDistribution", "attributes": {"low": 0.0001, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(27,6,'dropout',3.06047861361210704611e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.5}}');
INSERT INTO "trial_params" VALUES(28,6,'layers',3.0,'{"name": "IntUniformDistribution", "attributes": {"low": 1, "high": 4, "step": 1}}');
INSERT INTO "trial_params" VALUES(29,6,'act',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", null, true]}}');
INSERT INTO "trial_params" VALUES(30,6,'q',0.5,'{"name": "DiscreteUniformDistribution", "attributes": {"low": 0.0, "high": 1.0, "q": 0.25}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.40007786113105409109e-01);
INSERT INTO "trial_values" VALUES(2,2,0,3.87984942528132703554e-01);
INSERT INTO "trial_values" VALUES(3,3,0,5.31929617115401764948e-01);
INSERT INTO "trial_values" VALUES(4,4,0,2.73045977415795948495e-01);
INSERT INTO "trial_values" VALUES(5,5,0,1.29445946049768723096e-01);
INSERT INTO "trial_values" VALUES(6,6,0,1.55759008232456641618e-01);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-29 22:58:03.456886','2026-11-29 22:58:03.498771');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-29 22:58:03.508457','2026-11-29 22:58:03.544274');
INSERT INTO "trials" VALUES(3,2,1,'PRUNED','2026-11-29 22:58:03.550426','2026-11-29 22:58:03.579919');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-29 22:58:03.591162','2026-11-29 22:58:03.619495');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-29 22:58:03.625787','2026-11-29 22:58:03.655022');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-29 22:58:03.660382','2026-11-29 22:58:03.685875');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
