BEGIN TRANSACTION;
CREATE TABLE campaign (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "campaign" VALUES(1,'tiny',1.79600969794601345065e+09);
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
INSERT INTO "checkpoint" VALUES(3,'best',50,0,3,'','finite',7.16711496205957587779e-02,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(3,'latest',100,1,4,'','finite',9.7387263073592342244e-02,'92a2b225232c4dbfd9649d63c4e5bcda638662fdcb8a1385837034dea208f506','081ebb0cccc0e0f6b2d2595d141b178881fbd51c27c06f0b88f1e6860933e1ac','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(2,'best',100,0,5,'','finite',2.61809880368970959718e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(2,'latest',100,1,6,'','finite',2.61809880368970959718e-01,'400d1355049528ed52a8b9456251135f863227be3693df623f455502f7b4d1ac','def9e992d921534824577ab09d88ad7a4a2c4a47385cc5ae3dc38d2882036e04','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(4,'best',50,0,7,'','finite',1.87590123017201149124e+00,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(4,'latest',100,1,8,'','finite',2.10197977701822900096e+01,'0133ca2c1450ca89653a55602b04c86991e2c05f3d2a19412438caf3e27cd357','9b1300bd65686b25e664c854da25ccefd92cb2ffbaad4c33710490c55bca14f6','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(8,'best',44,0,15,'','finite',4.75195990006128943239e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(8,'latest',44,1,14,'trial-00000','finite',4.75195990006128943239e-01,'45f1c14118940a9eac26db88d9867682aabadae75f5eb0342c5fa63a8589fa9c','ec8e388884d1b778fe1812901f98cf7cb55e942509f572621800f10ea7505a3d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(8,'trunk',35,2,16,'',NULL,NULL,'45f1c14118940a9eac26db88d9867682aabadae75f5eb0342c5fa63a8589fa9c','102aaaf924d5fefdf2cad3e7732d96cf90beb5a45eec10e19c024b700ea8989d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(9,'best',44,0,17,'','finite',0.259885041109131,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(9,'latest',44,1,14,'trial-00001','finite',0.259885041109131,'bda2ebacc5fb8c1e68f422857c01eeb98262677dd34cb5f73480c645141ab93e','238422d7df15db6a1f907716ea0f29d925018c0371478654824af887649b780d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(9,'trunk',35,2,18,'',NULL,NULL,'bda2ebacc5fb8c1e68f422857c01eeb98262677dd34cb5f73480c645141ab93e','f5097579bf578caa832a9b1e5a3b0d94f323f169b2d1562735d61c99650f7038','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(10,'best',44,0,20,'','finite',4.43586198737223935673e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(10,'latest',44,1,19,'trial-00002','finite',4.43586198737223935673e-01,'4bc0c32ea9ba1e30c331f8d0ab0b61af2af4fe1eef905c8e848970e58c9a5aab','338b32369adec0dcce75ca83fb7a213f2954c6db12325d849e4cb67f54aff57b','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(10,'trunk',35,2,21,'',NULL,NULL,'4bc0c32ea9ba1e30c331f8d0ab0b61af2af4fe1eef905c8e848970e58c9a5aab','a3464091abb640ba619b2ac2fc330e03f82cc409b9d4edcb2739a068eeacf508','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(11,'best',44,0,22,'','finite',2.24170061317618518614e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(11,'latest',44,1,19,'trial-00003','finite',2.24170061317618518614e-01,'512a67653116111ecf466d9ef99182817256380f4f0227b195a8c1dded38e15a','b1473c0eeeda1e5fc1bd80982359a7dbba596cdab6d94d886874cbbe297357ec','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(11,'trunk',35,2,23,'',NULL,NULL,'512a67653116111ecf466d9ef99182817256380f4f0227b195a8c1dded38e15a','233520af424b6e5efc93de156817f69f8822c7fd392972eb5ec528402973caee','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(12,'best',44,0,25,'','finite',1.31005073913212061187e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(12,'latest',44,1,24,'trial-00000','finite',1.31005073913212061187e-01,'6372bf70b97e2b59a8645d797d85f6c235b112e5dfd94f5b592a0fc311fd8dad','b1473c0eeeda1e5fc1bd80982359a7dbba596cdab6d94d886874cbbe297357ec','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(12,'trunk',35,2,26,'',NULL,NULL,'6372bf70b97e2b59a8645d797d85f6c235b112e5dfd94f5b592a0fc311fd8dad','233520af424b6e5efc93de156817f69f8822c7fd392972eb5ec528402973caee','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(13,'best',44,0,27,'','finite',2.37056660512462269441e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(13,'latest',44,1,24,'trial-00001','finite',2.37056660512462269441e-01,'af4605fe5ff665c782844fcf47aa243204ed0bf3aec81b059eb2ab9089a989f0','238422d7df15db6a1f907716ea0f29d925018c0371478654824af887649b780d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(13,'trunk',35,2,28,'',NULL,NULL,'af4605fe5ff665c782844fcf47aa243204ed0bf3aec81b059eb2ab9089a989f0','f5097579bf578caa832a9b1e5a3b0d94f323f169b2d1562735d61c99650f7038','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(14,'best',22,0,30,'','finite',2.15812173462719164573e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(14,'latest',44,1,29,'trial-00002','finite',4.17108078193001552413e-01,'6004ac4c4b822044cee0a69f9926b32015d8e7bcd2e75ee201ff96b0e8416f0c','b1473c0eeeda1e5fc1bd80982359a7dbba596cdab6d94d886874cbbe297357ec','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(14,'trunk',35,2,31,'',NULL,NULL,'6004ac4c4b822044cee0a69f9926b32015d8e7bcd2e75ee201ff96b0e8416f0c','233520af424b6e5efc93de156817f69f8822c7fd392972eb5ec528402973caee','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(15,'best',44,0,32,'','finite',2.27232766349152376372e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(15,'latest',44,1,29,'trial-00003','finite',2.27232766349152376372e-01,'00655efdac7fa1a432c7df459a50bc5a9475958fa67a8187008db0d587c51bf0','238422d7df15db6a1f907716ea0f29d925018c0371478654824af887649b780d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(15,'trunk',35,2,33,'',NULL,NULL,'00655efdac7fa1a432c7df459a50bc5a9475958fa67a8187008db0d587c51bf0','f5097579bf578caa832a9b1e5a3b0d94f323f169b2d1562735d61c99650f7038','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(16,'best',44,0,34,'','finite',0.594868516921997,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(16,'latest',44,1,35,'','finite',0.594868516921997,'f5e71d7c31912c9d08b35d3c4a441375262defc603cd9e11a1c7a0bb5e94d56f','ec8e388884d1b778fe1812901f98cf7cb55e942509f572621800f10ea7505a3d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(16,'trunk',35,2,36,'',NULL,NULL,'f5e71d7c31912c9d08b35d3c4a441375262defc603cd9e11a1c7a0bb5e94d56f','102aaaf924d5fefdf2cad3e7732d96cf90beb5a45eec10e19c024b700ea8989d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(17,'best',44,0,37,'','finite',2.02613590699911583214e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(17,'latest',44,1,38,'','finite',2.02613590699911583214e-01,'08a892ab309c53bc83d58e8ed1a7dd0089c7e09fb8fb2b016121dc25a1b343b3','238422d7df15db6a1f907716ea0f29d925018c0371478654824af887649b780d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(17,'trunk',35,2,39,'',NULL,NULL,'08a892ab309c53bc83d58e8ed1a7dd0089c7e09fb8fb2b016121dc25a1b343b3','f5097579bf578caa832a9b1e5a3b0d94f323f169b2d1562735d61c99650f7038','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(18,'best',44,0,40,'','finite',5.80512791872024536132e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(18,'latest',44,1,41,'','finite',5.80512791872024536132e-01,'b7a47ae05bb9aa46c9cc20266746ca90a33ea9e75418c85745200b93d07f9e0f','ec8e388884d1b778fe1812901f98cf7cb55e942509f572621800f10ea7505a3d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(18,'trunk',35,2,42,'',NULL,NULL,'b7a47ae05bb9aa46c9cc20266746ca90a33ea9e75418c85745200b93d07f9e0f','102aaaf924d5fefdf2cad3e7732d96cf90beb5a45eec10e19c024b700ea8989d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(19,'best',44,0,43,'','finite',2.85025153755304905267e-01,NULL,NULL,NULL);
INSERT INTO "checkpoint" VALUES(19,'latest',44,1,44,'','finite',2.85025153755304905267e-01,'2f070aff6cc13933a3247011cb8c8d634a24451c0e5f717c8d3663098e33a939','238422d7df15db6a1f907716ea0f29d925018c0371478654824af887649b780d','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
INSERT INTO "checkpoint" VALUES(19,'trunk',35,2,45,'',NULL,NULL,'2f070aff6cc13933a3247011cb8c8d634a24451c0e5f717c8d3663098e33a939','f5097579bf578caa832a9b1e5a3b0d94f323f169b2d1562735d61c99650f7038','{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}');
CREATE TABLE checkpoint_file (
	id INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	digest TEXT NOT NULL, 
	num_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (path)
);
INSERT INTO "checkpoint_file" VALUES(3,'tiny/sweep-1-grid/trial-00001/best-000000050-1.safetensors','c0a0ac8c15454261c13804bf6be0c9ceac83bcfa5f045be351b4e0ebc8ec9a6c',848);
INSERT INTO "checkpoint_file" VALUES(4,'tiny/sweep-1-grid/trial-00001/latest-000000100-1.pt','281e17c14b67c46a45322c1d605d60510025945408a48598be93708bbd28307c',7600);
INSERT INTO "checkpoint_file" VALUES(5,'tiny/sweep-1-grid/trial-00000/best-000000100-1.safetensors','5c9b261ae039b9ad4364b319bdca3c858eaa965ba8f924ed3e50a928b97e49f5',848);
INSERT INTO "checkpoint_file" VALUES(6,'tiny/sweep-1-grid/trial-00000/latest-000000100-1.pt','0b0df145ca33e059d4d7e620082f665f10528969f7ecbc07f4f78366a67fd8d7',7600);
INSERT INTO "checkpoint_file" VALUES(7,'tiny/sweep-1-grid/trial-00002/best-000000050-1.safetensors','8e47dbc6ec4aa4eff8ce8ac5a9196f1bad9c59f28a8accd990388a2bd37d230b',848);
INSERT INTO "checkpoint_file" VALUES(8,'tiny/sweep-1-grid/trial-00002/latest-000000100-1.pt','6288be5ac1e166a08f7e4bd4a25235c1564672cd8ad48e8e8694c641872eb5cf',7600);
INSERT INTO "checkpoint_file" VALUES(14,'tiny/round-1/group-of-trial-00000/latest-000000001-1.pt','5ab15a4ee644a34d639efe25245d66f6435aa07cb3cf6ac6534ff5261097fc7c',10096);
INSERT INTO "checkpoint_file" VALUES(15,'tiny/round-1/trial-00000/best-000000044-1.safetensors','d015a289953654b55536ece15a5210c53286a7efad463a072407c571836d731b',848);
INSERT INTO "checkpoint_file" VALUES(16,'tiny/round-1/trial-00000/trunk-000000035-1.pt','b18e4101c35e22df4458038ba7d674987eee2659f8220ec98be0bff5bfb74f3f',9252);
INSERT INTO "checkpoint_file" VALUES(17,'tiny/round-1/trial-00001/best-000000044-1.safetensors','78f77126dd6e1ebc7a8bd1809958c87272656b324be62cdf1f28cf5a62750308',848);
INSERT INTO "checkpoint_file" VALUES(18,'tiny/round-1/trial-00001/trunk-000000035-1.pt','a3a7af9beae5bb8940bc7ee8bdb78c8553b0d7551516c2a828ea9761b05646e0',9252);
INSERT INTO "checkpoint_file" VALUES(19,'tiny/round-1/group-of-trial-00002/latest-000000001-1.pt','e8aad522c775d421f9a97ded6c3ba7f76bb14ff1a71ba13d6200a77c17f40afd',10096);
INSERT INTO "checkpoint_file" VALUES(20,'tiny/round-1/trial-00002/best-000000044-1.safetensors','f6a67b1ca0ffad007468a5b881eeba80c5cf7bc1ffd4c75ee0cbe0acadb56472',848);
INSERT INTO "checkpoint_file" VALUES(21,'tiny/round-1/trial-00002/trunk-000000035-1.pt','e17a66043aa2e36377e481f7c942fbfc00f7f552e9fea680b5f40be57d8859af',9252);
INSERT INTO "checkpoint_file" VALUES(22,'tiny/round-1/trial-00003/best-000000044-1.safetensors','25807047fd8cd2631e5c2869f4b961cbf0a87934c5ba28f65d04c4fea03c5a26',848);
INSERT INTO "checkpoint_file" VALUES(23,'tiny/round-1/trial-00003/trunk-000000035-1.pt','df95465a50d7bd84f91187e5e32bdcb171ae511ac51124f95032117d15c0a11f',9252);
INSERT INTO "checkpoint_file" VALUES(24,'tiny/round-2/group-of-trial-00000/latest-000000001-1.pt','b1cec839c91d62215c4ebdf77847316b57896978ca96dbc7fb5ad63edfb50212',10096);
INSERT INTO "checkpoint_file" VALUES(25,'tiny/round-2/trial-00000/best-000000044-1.safetensors','bd82a47236cebfd091dd1509f4ebe2bc0f0054eff66d05e4e7a6bf362da4de0d',848);
INSERT INTO "checkpoint_file" VALUES(26,'tiny/round-2/trial-00000/trunk-000000035-1.pt','6c02cf8138027605af7882f71abdee89f7fac67ec9d86123b504498162e0b394',9252);
INSERT INTO "checkpoint_file" VALUES(27,'tiny/round-2/trial-00001/best-000000044-1.safetensors','c1e7a3497545366e885c32bcc79cda2f3e26bf1f4d8da2479862081e9f35eedb',848);
INSERT INTO "checkpoint_file" VALUES(28,'tiny/round-2/trial-00001/trunk-000000035-1.pt','10f21a94a84d2befb8fc100b30b8f77c454d050134135116ad98ea18d1e4c12b',9252);
INSERT INTO "checkpoint_file" VALUES(29,'tiny/round-2/group-of-trial-00002/latest-000000001-1.pt','6dc7773f1ed02ab864a6fc1ab607517d1a7075c8d749973329f084ea7a3967d9',10096);
INSERT INTO "checkpoint_file" VALUES(30,'tiny/round-2/trial-00002/best-000000022-1.safetensors','2bb623c6eb0412b04fa1f69d378f086bca0ebbc44ce52dfb5f0c8fee5ed6c98a',848);
INSERT INTO "checkpoint_file" VALUES(31,'tiny/round-2/trial-00002/trunk-000000035-1.pt','292a7e9807a3752d2a5ed135b2411e80edd4e0ae2954bc929a6c90f2de54c2a8',9252);
INSERT INTO "checkpoint_file" VALUES(32,'tiny/round-2/trial-00003/best-000000044-1.safetensors','106d6e5cc2c95e9e5882e86a9a680ce681b68cb3beb02a3373c08d874168bda0',848);
INSERT INTO "checkpoint_file" VALUES(33,'tiny/round-2/trial-00003/trunk-000000035-1.pt','6b5f65267aafa69b3c6dbc73772cf2315d7d18d867151a2755cf9ae0d6a2b5e8',9252);
INSERT INTO "checkpoint_file" VALUES(34,'tiny/adopt-round-1-0-over-round-1-1/trial-00000/best-000000044-1.safetensors','c5b585250b314a8de9ad7a939546f0e4dbd874e0e0ed5bf71854dc0083a27709',848);
INSERT INTO "checkpoint_file" VALUES(35,'tiny/adopt-round-1-0-over-round-1-1/trial-00000/latest-000000044-1.pt','09447a8c90cc7d1ab5f4efc34f6ebd81021435284ea118c43a13dab5995e0e1c',7600);
INSERT INTO "checkpoint_file" VALUES(36,'tiny/adopt-round-1-0-over-round-1-1/trial-00000/trunk-000000035-1.pt','b41f49738d8a54565073d755cca9994a43540bbc194959817aba000800658d1a',9252);
INSERT INTO "checkpoint_file" VALUES(37,'tiny/adopt-round-1-0-over-round-1-1/trial-00001/best-000000044-1.safetensors','1444be502eb454a90310b9c313691d94be2391374c95d867f818401e95490975',848);
INSERT INTO "checkpoint_file" VALUES(38,'tiny/adopt-round-1-0-over-round-1-1/trial-00001/latest-000000044-1.pt','393d8cac41447fb4b69f4464faef421202f1c8a4ac4b3e2c078608ef31a5680c',7600);
INSERT INTO "checkpoint_file" VALUES(39,'tiny/adopt-round-1-0-over-round-1-1/trial-00001/trunk-000000035-1.pt','b96febcad1c1348db7e5b8d3fd23a929c14a6511c8b4af5436d0a3d6d8686bbb',9252);
INSERT INTO "checkpoint_file" VALUES(40,'tiny/adopt-round-1-0-over-round-1-1/trial-00002/best-000000044-1.safetensors','64bc24d8d4b9ac4535b1324b94136b519e0d47fb19bd4fb6762d1ac994bfbdf2',848);
INSERT INTO "checkpoint_file" VALUES(41,'tiny/adopt-round-1-0-over-round-1-1/trial-00002/latest-000000044-1.pt','f29d7f706b0afd30eb5cf1290fbf43654a5516f87f6f3192982788adc6175d79',7600);
INSERT INTO "checkpoint_file" VALUES(42,'tiny/adopt-round-1-0-over-round-1-1/trial-00002/trunk-000000035-1.pt','f388a4a3aee937e7d2c07088af0302fdefae02ecc2e02985ad6e7a744fb744f1',9252);
INSERT INTO "checkpoint_file" VALUES(43,'tiny/adopt-round-1-0-over-round-1-1/trial-00003/best-000000044-1.safetensors','dc88051077c533ebba2142f4da6aad71cd434190c07d70eeb448d86c17959cad',848);
INSERT INTO "checkpoint_file" VALUES(44,'tiny/adopt-round-1-0-over-round-1-1/trial-00003/latest-000000044-1.pt','8f7fa3c9f586bab73452f0c1a052e8bed8db81d9249ccbcf730d050070ef45ab',7600);
INSERT INTO "checkpoint_file" VALUES(45,'tiny/adopt-round-1-0-over-round-1-1/trial-00003/trunk-000000035-1.pt','a68a87e581b51640b4fe5b6d250679d497968710a0568cefa877be4ec6ee91e7',9252);
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
INSERT INTO "conclusion" VALUES(4,1,2,'budget','{"origin": "", "source": null, "basis": {"batch_size": "8", "optimizer": "adamw", "schedule": "constant_then_decay 0.2 to 0, warmup 0", "regularization dropout": "0 to 0.5", "architecture": "df6fbfb099f5dcc6", "loss": "b28280a8ac30b5d3", "augmentation": "d36254a75f384a15", "training data": "ca0a209f646c988e", "validation data": "cb6d696fa9da044d", "format": "2"}}',1.79600969871201229096e+09);
INSERT INTO "conclusion" VALUES(5,1,2,'finite validation','{"validation data": "cb6d696fa9da044d", "by": "validation/loss"}',1.79600969871700096133e+09);
INSERT INTO "conclusion" VALUES(6,1,2,'profile','{"profile": "exact"}',1.79600969877900028225e+09);
INSERT INTO "conclusion" VALUES(14,1,NULL,'sweep','{"outcome": "fitted", "learning_rate": 0.1, "low": 21, "high": 22, "max_steps": 100, "edge_of_stability": false, "tied": [], "seed_steps": [22], "unfitted_seeds": 0, "seed_low": null, "seed_high": null, "name": "sweep-1", "margin": 2.0}',1.79600970167300987238e+09);
INSERT INTO "conclusion" VALUES(15,1,NULL,'regime','{"verdict": "undecided", "evidence": "undecided"}',1.79600970179998588567e+09);
INSERT INTO "conclusion" VALUES(16,1,5,'budget','{"origin": "2 times the 22 steps to fit that the sweep found (A18)", "source": "sweep-1-grid", "basis": {"batch_size": "8", "optimizer": "adamw", "schedule": "constant_then_decay 0.2 to 0, warmup 0", "regularization dropout": "0 to 0.5", "architecture": "df6fbfb099f5dcc6", "loss": "b28280a8ac30b5d3", "augmentation": "d36254a75f384a15", "training data": "ca0a209f646c988e", "validation data": "cb6d696fa9da044d", "format": "2"}}',1.7960097019960017204e+09);
INSERT INTO "conclusion" VALUES(17,1,5,'finite validation','{"validation data": "cb6d696fa9da044d", "by": "validation/loss"}',1.7960097019960017204e+09);
INSERT INTO "conclusion" VALUES(18,1,5,'profile','{"profile": "exact"}',1.79600970203599333762e+09);
INSERT INTO "conclusion" VALUES(19,1,5,'fusion','{"adamw batch_size=8 dropout learning_rate": {"trials": 2, "reason": "--fuse 2", "ways": {"linear": "loop", "relu": "rule", "dropout": "rule", "log_softmax": "rule", "cross_entropy": "rule"}, "seconds": 0.0, "self_check": "identical", "numerics": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}}',1.79600970256699037554e+09);
INSERT INTO "conclusion" VALUES(20,1,6,'budget','{"origin": "best steps of round-1 are inconclusive: the same 44 steps", "source": "round-1", "basis": {"batch_size": "8", "optimizer": "adamw", "schedule": "constant_then_decay 0.2 to 0, warmup 0", "regularization dropout": "0 to 0.5", "architecture": "df6fbfb099f5dcc6", "loss": "b28280a8ac30b5d3", "augmentation": "d36254a75f384a15", "training data": "ca0a209f646c988e", "validation data": "cb6d696fa9da044d", "format": "2"}}',1.79600970336698579788e+09);
INSERT INTO "conclusion" VALUES(21,1,6,'finite validation','{"validation data": "cb6d696fa9da044d", "by": "validation/loss"}',1.79600970336799168583e+09);
INSERT INTO "conclusion" VALUES(22,1,6,'profile','{"profile": "exact"}',1.79600970344298624991e+09);
INSERT INTO "conclusion" VALUES(23,1,6,'fusion','{"adamw batch_size=8 dropout learning_rate": {"trials": 2, "reason": "--fuse 2", "ways": {"linear": "loop", "relu": "rule", "dropout": "rule", "log_softmax": "rule", "cross_entropy": "rule"}, "seconds": 0.0, "self_check": "identical", "numerics": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}}',1.79600970401900410658e+09);
INSERT INTO "conclusion" VALUES(24,1,7,'budget','{"origin": "as round-1", "source": null, "basis": {"batch_size": "8", "optimizer": "adamw", "schedule": "constant_then_decay 0.2 to 0, warmup 0", "regularization dropout": "0 to 0.5", "architecture": "df6fbfb099f5dcc6", "loss": "b28280a8ac30b5d3", "augmentation": "d36254a75f384a15", "training data": "ca0a209f646c988e", "validation data": "cb6d696fa9da044d", "format": "2"}}',1.79600971565100693701e+09);
INSERT INTO "conclusion" VALUES(25,1,7,'finite validation','{"validation data": "cb6d696fa9da044d", "by": "validation/loss"}',1.79600971565201282496e+09);
INSERT INTO "conclusion" VALUES(26,1,7,'profile','{"profile": "exact"}',1.79600971571900105473e+09);
INSERT INTO "conclusion" VALUES(27,1,7,'adoption','{"candidate": "round-1 trial 0", "baseline": "round-1 trial 1", "verdict": "keep", "gain": -0.3438712821694026, "low": -0.46501740969761274, "high": -0.22272515464119247, "level": 0.8, "minimum_gain": 0.0, "replicates": 2, "metric": "minimize validation/loss"}',1.79600971671798968309e+09);
INSERT INTO "conclusion" VALUES(28,1,NULL,'test_score','{"study": "round-2", "trial": 0, "step": 44, "objective": "validation/loss", "value": 0.13100507391321206, "metrics": {"test/loss": 0.09915910801271188, "test/error_rate": 0.075}, "examples": 40, "checkpoint": "bd82a47236cebfd091dd1509f4ebe2bc0f0054eff66d05e4e7a6bf362da4de0d"}',1.79600971788901543615e+09);
INSERT INTO "conclusion" VALUES(29,1,5,'second_try','{"trials": [1]}',1.79600974296298933029e+09);
INSERT INTO "conclusion" VALUES(30,1,5,'retention','{"order": ["latest", "trunk", "best"]}',1.79600974299799203866e+09);
INSERT INTO "conclusion" VALUES(31,1,NULL,'budget_curve','{"studies": ["round-1", "round-2"]}',1.79600974300599837297e+09);
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
INSERT INTO "launch" VALUES(2,2,1.7960096987600102425e+09,'tuner run tiny.py','{}','{}','host:1:a');
INSERT INTO "launch" VALUES(5,5,1.79600970202400398259e+09,'tuner run tiny.py','{}','{}','host:1:a');
INSERT INTO "launch" VALUES(6,6,1.79600970342101907734e+09,'tuner run tiny.py','{}','{}','host:1:a');
INSERT INTO "launch" VALUES(7,7,1.79600971569799923899e+09,'tuner run tiny.py','{}','{}','host:1:a');
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
INSERT INTO "measurement" VALUES(2,3,100,'finite',0.0);
INSERT INTO "measurement" VALUES(2,6,100,'finite',2.61809880368970959718e-01);
INSERT INTO "measurement" VALUES(3,3,100,'finite',0.0);
INSERT INTO "measurement" VALUES(3,6,100,'finite',9.7387263073592342244e-02);
INSERT INTO "measurement" VALUES(4,3,100,'finite',0.02);
INSERT INTO "measurement" VALUES(4,6,100,'finite',2.10197977701822900096e+01);
INSERT INTO "measurement" VALUES(8,3,11,'finite',0.18);
INSERT INTO "measurement" VALUES(8,3,22,'finite',0.18);
INSERT INTO "measurement" VALUES(8,3,33,'finite',0.2);
INSERT INTO "measurement" VALUES(8,3,44,'finite',0.18);
INSERT INTO "measurement" VALUES(8,6,11,'finite',0.529834297299385);
INSERT INTO "measurement" VALUES(8,6,22,'finite',5.07118119299411751477e-01);
INSERT INTO "measurement" VALUES(8,6,33,'finite',4.87287025650342320304e-01);
INSERT INTO "measurement" VALUES(8,6,44,'finite',4.75195990006128943239e-01);
INSERT INTO "measurement" VALUES(9,3,11,'finite',0.18);
INSERT INTO "measurement" VALUES(9,3,22,'finite',0.1);
INSERT INTO "measurement" VALUES(9,3,33,'finite',0.08);
INSERT INTO "measurement" VALUES(9,3,44,'finite',0.02);
INSERT INTO "measurement" VALUES(9,6,11,'finite',5.64592306812604305399e-01);
INSERT INTO "measurement" VALUES(9,6,22,'finite',4.31579774369796109745e-01);
INSERT INTO "measurement" VALUES(9,6,33,'finite',3.34578804951161157266e-01);
INSERT INTO "measurement" VALUES(9,6,44,'finite',0.259885041109131);
INSERT INTO "measurement" VALUES(10,3,11,'finite',0.34);
INSERT INTO "measurement" VALUES(10,3,22,'finite',0.2);
INSERT INTO "measurement" VALUES(10,3,33,'finite',0.14);
INSERT INTO "measurement" VALUES(10,3,44,'finite',0.1);
INSERT INTO "measurement" VALUES(10,6,11,'finite',6.67128544052441929679e-01);
INSERT INTO "measurement" VALUES(10,6,22,'finite',5.56590157250563266622e-01);
INSERT INTO "measurement" VALUES(10,6,33,'finite',4.83387220402558659415e-01);
INSERT INTO "measurement" VALUES(10,6,44,'finite',4.43586198737223935673e-01);
INSERT INTO "measurement" VALUES(11,3,11,'finite',0.04);
INSERT INTO "measurement" VALUES(11,3,22,'finite',0.02);
INSERT INTO "measurement" VALUES(11,3,33,'finite',0.0);
INSERT INTO "measurement" VALUES(11,3,44,'finite',0.0);
INSERT INTO "measurement" VALUES(11,6,11,'finite',4.44133812293633412071e-01);
INSERT INTO "measurement" VALUES(11,6,22,'finite',3.97579850368866061227e-01);
INSERT INTO "measurement" VALUES(11,6,33,'finite',2.87293881133404260808e-01);
INSERT INTO "measurement" VALUES(11,6,44,'finite',2.24170061317618518614e-01);
INSERT INTO "measurement" VALUES(12,3,11,'finite',0.08);
INSERT INTO "measurement" VALUES(12,3,22,'finite',0.02);
INSERT INTO "measurement" VALUES(12,3,33,'finite',0.0);
INSERT INTO "measurement" VALUES(12,3,44,'finite',0.0);
INSERT INTO "measurement" VALUES(12,6,11,'finite',4.30660216510295845715e-01);
INSERT INTO "measurement" VALUES(12,6,22,'finite',3.02274119058468682119e-01);
INSERT INTO "measurement" VALUES(12,6,33,'finite',1.61758983436417730361e-01);
INSERT INTO "measurement" VALUES(12,6,44,'finite',1.31005073913212061187e-01);
INSERT INTO "measurement" VALUES(13,3,11,'finite',0.16);
INSERT INTO "measurement" VALUES(13,3,22,'finite',0.08);
INSERT INTO "measurement" VALUES(13,3,33,'finite',0.04);
INSERT INTO "measurement" VALUES(13,3,44,'finite',0.0);
INSERT INTO "measurement" VALUES(13,6,11,'finite',5.37598426640033766332e-01);
INSERT INTO "measurement" VALUES(13,6,22,'finite',3.84931952382127462453e-01);
INSERT INTO "measurement" VALUES(13,6,33,'finite',2.87742241487527861121e-01);
INSERT INTO "measurement" VALUES(13,6,44,'finite',2.37056660512462269441e-01);
INSERT INTO "measurement" VALUES(14,3,11,'finite',0.04);
INSERT INTO "measurement" VALUES(14,3,22,'finite',0.0);
INSERT INTO "measurement" VALUES(14,3,33,'finite',0.0);
INSERT INTO "measurement" VALUES(14,3,44,'finite',0.0);
INSERT INTO "measurement" VALUES(14,6,11,'finite',2.99420969343433762688e-01);
INSERT INTO "measurement" VALUES(14,6,22,'finite',2.15812173462719164573e-01);
INSERT INTO "measurement" VALUES(14,6,33,'finite',3.22946083651970639039e-01);
INSERT INTO "measurement" VALUES(14,6,44,'finite',4.17108078193001552413e-01);
INSERT INTO "measurement" VALUES(15,3,11,'finite',0.1);
INSERT INTO "measurement" VALUES(15,3,22,'finite',0.06);
INSERT INTO "measurement" VALUES(15,3,33,'finite',0.04);
INSERT INTO "measurement" VALUES(15,3,44,'finite',0.02);
INSERT INTO "measurement" VALUES(15,6,11,'finite',5.16283927361170458247e-01);
INSERT INTO "measurement" VALUES(15,6,22,'finite',4.00462279298032297614e-01);
INSERT INTO "measurement" VALUES(15,6,33,'finite',2.87467411917896265016e-01);
INSERT INTO "measurement" VALUES(15,6,44,'finite',2.27232766349152376372e-01);
INSERT INTO "measurement" VALUES(16,3,11,'finite',0.4);
INSERT INTO "measurement" VALUES(16,3,22,'finite',0.32);
INSERT INTO "measurement" VALUES(16,3,33,'finite',0.28);
INSERT INTO "measurement" VALUES(16,3,44,'finite',0.28);
INSERT INTO "measurement" VALUES(16,6,11,'finite',6.73867229620615626473e-01);
INSERT INTO "measurement" VALUES(16,6,22,'finite',6.42994581659634856229e-01);
INSERT INTO "measurement" VALUES(16,6,33,'finite',6.12387451529502913061e-01);
INSERT INTO "measurement" VALUES(16,6,44,'finite',0.594868516921997);
INSERT INTO "measurement" VALUES(17,3,11,'finite',0.1);
INSERT INTO "measurement" VALUES(17,3,22,'finite',0.02);
INSERT INTO "measurement" VALUES(17,3,33,'finite',0.02);
INSERT INTO "measurement" VALUES(17,3,44,'finite',0.02);
INSERT INTO "measurement" VALUES(17,6,11,'finite',4.89978806177775061403e-01);
INSERT INTO "measurement" VALUES(17,6,22,'finite',3.5452470341697334133e-01);
INSERT INTO "measurement" VALUES(17,6,33,'finite',2.48592815559823071547e-01);
INSERT INTO "measurement" VALUES(17,6,44,'finite',2.02613590699911583214e-01);
INSERT INTO "measurement" VALUES(18,3,11,'finite',0.36);
INSERT INTO "measurement" VALUES(18,3,22,'finite',0.32);
INSERT INTO "measurement" VALUES(18,3,33,'finite',0.28);
INSERT INTO "measurement" VALUES(18,3,44,'finite',0.2);
INSERT INTO "measurement" VALUES(18,6,11,'finite',6.60332972804705264913e-01);
INSERT INTO "measurement" VALUES(18,6,22,'finite',6.29680725932121321264e-01);
INSERT INTO "measurement" VALUES(18,6,33,'finite',0.599701930085818);
INSERT INTO "measurement" VALUES(18,6,44,'finite',5.80512791872024536132e-01);
INSERT INTO "measurement" VALUES(19,3,11,'finite',0.14);
INSERT INTO "measurement" VALUES(19,3,22,'finite',0.1);
INSERT INTO "measurement" VALUES(19,3,33,'finite',0.06);
INSERT INTO "measurement" VALUES(19,3,44,'finite',0.04);
INSERT INTO "measurement" VALUES(19,6,11,'finite',5.35347344974676730977e-01);
INSERT INTO "measurement" VALUES(19,6,22,'finite',3.95990263399047137671e-01);
INSERT INTO "measurement" VALUES(19,6,33,'finite',3.13714242494703865471e-01);
INSERT INTO "measurement" VALUES(19,6,44,'finite',2.85025153755304905267e-01);
CREATE TABLE metric (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "metric" VALUES(1,'batch/gradient_norm');
INSERT INTO "metric" VALUES(2,'batch/loss');
INSERT INTO "metric" VALUES(3,'training/error_rate');
INSERT INTO "metric" VALUES(4,'training/loss');
INSERT INTO "metric" VALUES(5,'validation/error_rate');
INSERT INTO "metric" VALUES(6,'validation/loss');
CREATE TABLE schema_version (
	version INTEGER NOT NULL, 
	applied DOUBLE NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "schema_version" VALUES(3,1.79600969752300238611e+09);
CREATE TABLE storage (
	id INTEGER NOT NULL, 
	identity TEXT NOT NULL, 
	copy_of TEXT, 
	checkpoints TEXT, 
	generation BIGINT DEFAULT '0' NOT NULL, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "storage" VALUES(1,'509e348639e118ecbd9b0bee09827410',NULL,'checkpoints',2,1.79600969752300238611e+09);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	campaign_id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	round INTEGER, 
	declaration TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	identity TEXT, 
	created DOUBLE NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (campaign_id, name), 
	FOREIGN KEY(campaign_id) REFERENCES campaign (id)
);
INSERT INTO "study" VALUES(2,1,'sweep-1-grid','sweep',NULL,'{"name": "sweep-1-grid", "kind": "sweep", "goal": "How many steps does the fastest constant learning rate need to fit the training set?", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.01, "high": 1.0, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}], "fixed": [["dropout", {"value": 0.0, "family": null, "off": null, "has_off": false}]], "budget": {"max_train_steps": 100, "evaluate_every": 25, "early": []}, "num_trials": 3, "objective": {"metric": "validation/loss", "direction": "minimize", "worth": null}, "fitted_when": {"metric": "training/error_rate", "side": "at_most", "threshold": 0.0}, "optimizer": "adamw", "schedule": {"name": "constant", "decay": null, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 0, "batch_size": 8, "seed": 8975007230076856474, "keep_best": 1, "augment": false, "round": null, "lineage": [["sweep", "247e9cf502804bba"]], "scientific": [], "source": "", "sampler": "", "batch": 0}','87ef4ba1a463bb4d637e5003bb7e028ddf184fb167aaf28b6494ec89a0676ed5','{"format": 1, "code": {"the study file": {"class Tiny": "02b731095c961fe7", "imports": "cd0194f26d2e1abd", "method Tiny.data": "c052037671a847a2", "method Tiny.loss": "5046b9b359f83322", "method Tiny.metrics": "8ec36b7cd4153b3f", "method Tiny.model": "e116ebcca7c06040"}}, "arguments": {}, "data": {"training": "ca0a209f646c988e", "validation": "cb6d696fa9da044d", "test": "edf87431de23d4da"}, "packages": {}, "weights": [{"point": {"learning_rate": 0.10000000000000002, "dropout": 0.0}, "digest": "bcfd5a6b3f1434b0", "made_under": "{\"cpu_capability\": \"AVX512\", \"device\": \"cpu\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"torch\": \"2.13.0+cpu\"}", "loss": "d4588772a0d680c4", "loss_under": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}]}',1.79600969871000051497e+09);
INSERT INTO "study" VALUES(5,1,'round-1','round',1,'{"name": "round-1", "kind": "round", "goal": "a test", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.001, "high": 0.1, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}, {"name": "dropout", "domain": {"low": 0.0, "high": 0.5, "log": false, "integer": false, "family": null, "off": 0.0, "limits": "low"}, "family": "regularization", "condition": null}], "fixed": [], "budget": {"max_train_steps": 44, "evaluate_every": 11, "early": []}, "num_trials": 4, "objective": {"metric": "validation/loss", "direction": "minimize", "worth": null}, "fitted_when": {"metric": "training/error_rate", "side": "at_most", "threshold": 0.0}, "optimizer": "adamw", "schedule": {"name": "constant_then_decay", "decay": 0.2, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 0, "batch_size": 8, "seed": 5857228154237252844, "keep_best": 1, "augment": true, "round": 1, "lineage": [], "scientific": [], "source": "", "sampler": "", "batch": 0}','87ef4ba1a463bb4d637e5003bb7e028ddf184fb167aaf28b6494ec89a0676ed5','{"format": 1, "code": {"the study file": {"class Tiny": "02b731095c961fe7", "imports": "cd0194f26d2e1abd", "method Tiny.data": "c052037671a847a2", "method Tiny.loss": "5046b9b359f83322", "method Tiny.metrics": "8ec36b7cd4153b3f", "method Tiny.model": "e116ebcca7c06040"}}, "arguments": {}, "data": {"training": "ca0a209f646c988e", "validation": "cb6d696fa9da044d", "test": "edf87431de23d4da"}, "packages": {}, "weights": [{"point": {"learning_rate": 0.010000000000000004, "dropout": 0.25}, "digest": "bcfd5a6b3f1434b0", "made_under": "{\"cpu_capability\": \"AVX512\", \"device\": \"cpu\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"torch\": \"2.13.0+cpu\"}", "loss": "e25300fe83f2ef6a", "loss_under": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}]}',1.79600970198401212697e+09);
INSERT INTO "study" VALUES(6,1,'round-2','round',2,'{"name": "round-2", "kind": "round", "goal": "the best", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.001, "high": 0.1, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}, {"name": "dropout", "domain": {"low": 0.0, "high": 0.5, "log": false, "integer": false, "family": null, "off": 0.0, "limits": "low"}, "family": "regularization", "condition": null}], "fixed": [], "budget": {"max_train_steps": 44, "evaluate_every": 11, "early": []}, "num_trials": 4, "objective": {"metric": "validation/loss", "direction": "minimize", "worth": null}, "fitted_when": {"metric": "training/error_rate", "side": "at_most", "threshold": 0.0}, "optimizer": "adamw", "schedule": {"name": "constant_then_decay", "decay": 0.2, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 0, "batch_size": 8, "seed": 2380285464811832294, "keep_best": 1, "augment": true, "round": 2, "lineage": [["round-1", "trial 3"], ["round-1", "trial 1"]], "scientific": [], "source": "", "sampler": "", "batch": 0}','87ef4ba1a463bb4d637e5003bb7e028ddf184fb167aaf28b6494ec89a0676ed5','{"format": 1, "code": {"the study file": {"class Tiny": "02b731095c961fe7", "imports": "cd0194f26d2e1abd", "method Tiny.data": "c052037671a847a2", "method Tiny.loss": "5046b9b359f83322", "method Tiny.metrics": "8ec36b7cd4153b3f", "method Tiny.model": "e116ebcca7c06040"}}, "arguments": {}, "data": {"training": "ca0a209f646c988e", "validation": "cb6d696fa9da044d", "test": "edf87431de23d4da"}, "packages": {}, "weights": [{"point": {"learning_rate": 0.010000000000000004, "dropout": 0.25}, "digest": "bcfd5a6b3f1434b0", "made_under": "{\"cpu_capability\": \"AVX512\", \"device\": \"cpu\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"torch\": \"2.13.0+cpu\"}", "loss": "e25300fe83f2ef6a", "loss_under": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}]}',1.79600970336598014832e+09);
INSERT INTO "study" VALUES(7,1,'adopt-round-1-0-over-round-1-1','adoption',NULL,'{"name": "adopt-round-1-0-over-round-1-1", "kind": "adoption", "goal": "Is trial round-1/0 better than trial round-1/1, in view of the variance of trials?", "hyperparameters": [{"name": "learning_rate", "domain": {"low": 0.001, "high": 0.1, "log": true, "integer": false, "family": null, "off": null, "limits": "none"}, "family": "optimizer", "condition": null}, {"name": "dropout", "domain": {"low": 0.0, "high": 0.5, "log": false, "integer": false, "family": null, "off": 0.0, "limits": "low"}, "family": "regularization", "condition": null}], "fixed": [], "budget": {"max_train_steps": 44, "evaluate_every": 11, "early": []}, "num_trials": 4, "objective": {"metric": "validation/loss", "direction": "minimize", "worth": null}, "fitted_when": {"metric": "training/error_rate", "side": "at_most", "threshold": 0.0}, "optimizer": "adamw", "schedule": {"name": "constant_then_decay", "decay": 0.2, "final": 0.0, "decay_shape": "linear", "timescale": null}, "warmup_steps": 0, "batch_size": 8, "seed": 5106668096389213728, "keep_best": 1, "augment": true, "round": null, "lineage": [["round-1", "0"], ["round-1", "1"]], "scientific": [], "source": "", "sampler": "", "batch": 0}','87ef4ba1a463bb4d637e5003bb7e028ddf184fb167aaf28b6494ec89a0676ed5','{"format": 1, "code": {"the study file": {"class Tiny": "02b731095c961fe7", "imports": "cd0194f26d2e1abd", "method Tiny.data": "c052037671a847a2", "method Tiny.loss": "5046b9b359f83322", "method Tiny.metrics": "8ec36b7cd4153b3f", "method Tiny.model": "e116ebcca7c06040"}}, "arguments": {}, "data": {"training": "ca0a209f646c988e", "validation": "cb6d696fa9da044d", "test": "edf87431de23d4da"}, "packages": {}, "weights": [{"point": {"learning_rate": 0.010000000000000004, "dropout": 0.25}, "digest": "bcfd5a6b3f1434b0", "made_under": "{\"cpu_capability\": \"AVX512\", \"device\": \"cpu\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"torch\": \"2.13.0+cpu\"}", "loss": "e25300fe83f2ef6a", "loss_under": "{\"cpu_capability\": \"AVX512\", \"denormals\": \"zero\", \"device\": \"cpu\", \"engine\": \"module\", \"machine\": \"x86_64\", \"precision\": \"float32\", \"threads\": 1, \"torch\": \"2.13.0+cpu\"}"}]}',1.79600971564798951151e+09);
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
	farthest BIGINT DEFAULT '0' NOT NULL, 
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
INSERT INTO "trial" VALUES(2,2,0,'complete','','{"learning_rate": 0.01, "dropout": 0.0}',4721129730717493235,6099624407703976089,'{"pieces": [{"shape": "constant", "steps": 100, "start": 1.0, "end": 1.0}]}','grid','',100,100,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[]',0,NULL,1.79600969879501318931e+09,1.79600969919501090047e+09);
INSERT INTO "trial" VALUES(3,2,1,'complete','','{"learning_rate": 0.1, "dropout": 0.0}',4721129730717493235,6099624407703976089,'{"pieces": [{"shape": "constant", "steps": 100, "start": 1.0, "end": 1.0}]}','grid','',100,100,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[]',100,1,1.79600969879501318931e+09,1.79600969898101091382e+09);
INSERT INTO "trial" VALUES(4,2,2,'complete','','{"learning_rate": 1.0, "dropout": 0.0}',4721129730717493235,6099624407703976089,'{"pieces": [{"shape": "constant", "steps": 100, "start": 1.0, "end": 1.0}]}','grid','',100,100,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[]',0,NULL,1.7960096992160127163e+09,1.7960096994570090771e+09);
INSERT INTO "trial" VALUES(8,5,0,'complete','','{"learning_rate": 0.0017800646942564404, "dropout": 0.30613025147665035}',5937078713313267817,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','quasi-random 0','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600970204701709744e+09,1.79600970255701255801e+09);
INSERT INTO "trial" VALUES(9,5,1,'complete','','{"learning_rate": 0.01780064694256439, "dropout": 0.472796918143317}',2221846673319826639,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','quasi-random 1','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600970204701709744e+09,1.79600970255701255801e+09);
INSERT INTO "trial" VALUES(10,5,2,'complete','','{"learning_rate": 0.005629058816301596, "dropout": 0.13946358480998358}',6166694936329822004,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','quasi-random 2','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1796009702.57902,1.79600970297398853303e+09);
INSERT INTO "trial" VALUES(11,5,3,'complete','','{"learning_rate": 0.05629058816301597, "dropout": 0.19501914036553913}',3413248209667919776,4535930912672495575,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','quasi-random 3','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1796009702.57902,1.79600970297398853303e+09);
INSERT INTO "trial" VALUES(12,6,0,'complete','','{"learning_rate": 0.05629058816301597, "dropout": 0.19501914036553913}',5220318818293681000,9001021997014862805,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','round-1 trial 3, fresh seeds','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu", "exact": false}','[35]',0,NULL,1.79600970345501613619e+09,1.79600970400500297547e+09);
INSERT INTO "trial" VALUES(13,6,1,'complete','','{"learning_rate": 0.01780064694256439, "dropout": 0.472796918143317}',7745699166224519267,9001021997014862805,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','round-1 trial 1, fresh seeds','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600970345501613619e+09,1.79600970400500297547e+09);
INSERT INTO "trial" VALUES(14,6,2,'complete','','{"learning_rate": 0.05629058816301597, "dropout": 0.19501914036553913}',2793076141708973326,9001021997014862805,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','round-1 trial 3, fresh seeds','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.7960097040350170136e+09,1.79600970449701404568e+09);
INSERT INTO "trial" VALUES(15,6,3,'complete','','{"learning_rate": 0.01780064694256439, "dropout": 0.472796918143317}',9170201437067581523,9001021997014862805,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','round-1 trial 1, fresh seeds','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.7960097040350170136e+09,1.79600970449701404568e+09);
INSERT INTO "trial" VALUES(16,7,0,'complete','','{"learning_rate": 0.0017800646942564404, "dropout": 0.30613025147665035}',4066924833017236158,8359159096683479959,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','replicate of round-1/0','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600971574000263216e+09,1.79600971596498632434e+09);
INSERT INTO "trial" VALUES(17,7,1,'complete','','{"learning_rate": 0.01780064694256439, "dropout": 0.472796918143317}',1694154495858072023,1820425503279156189,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','replicate of round-1/1','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600971597898745541e+09,1.79600971618900442125e+09);
INSERT INTO "trial" VALUES(18,7,2,'complete','','{"learning_rate": 0.0017800646942564404, "dropout": 0.30613025147665035}',5768585746927033682,5472807251288116037,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','replicate of round-1/0','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600971619898223874e+09,1.79600971638900327683e+09);
INSERT INTO "trial" VALUES(19,7,3,'complete','','{"learning_rate": 0.01780064694256439, "dropout": 0.472796918143317}',3769687880527679861,4817346969144666244,'{"pieces": [{"shape": "constant", "steps": 35, "start": 1.0, "end": 1.0}, {"shape": "linear", "steps": 9, "start": 1.0, "end": 0.0}]}','replicate of round-1/1','adamw batch_size=8 dropout learning_rate',44,44,1,1,NULL,NULL,NULL,'{"cpu_capability": "AVX512", "denormals": "zero", "device": "cpu", "engine": "module", "machine": "x86_64", "precision": "float32", "threads": 1, "torch": "2.13.0+cpu"}','[35]',0,NULL,1.79600971640300464634e+09,1.79600971658900237081e+09);
CREATE INDEX trial_by_state ON trial (study_id, state, number);
CREATE INDEX ix_launch_study_id ON launch (study_id);
CREATE INDEX conclusion_by_kind ON conclusion (campaign_id, kind);
CREATE INDEX ix_checkpoint_file_id ON checkpoint (file_id);
CREATE INDEX checkpoint_by_prefix ON checkpoint (prefix_base);
COMMIT;
