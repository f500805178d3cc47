"""docker-compose.yml: right by the specification, and every part fits every other.

Each rule is shown to work on a file that breaks it.
"""

import pytest
import yaml

from tests.unit.deploy.composition import (
    COMPOSE,
    DOCKERFILE,
    WITH_RDS,
    environment,
    faults,
    is_ours,
    load,
    merged,
)

TEXT, IMAGE = COMPOSE.read_text(), DOCKERFILE.read_text()


def by_the_specification(text: str) -> None:
    from compose_spec import PyCompose  # noqa: PLC0415 - it has wheels for this platform only

    PyCompose.from_yaml(yaml.safe_dump(load(text))).validate()


def test_it_is_a_composition_and_everything_fits() -> None:
    by_the_specification(TEXT)
    assert faults(load(TEXT), IMAGE) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("restart: unless-stopped", "restrat: unless-stopped"),
        ("condition: service_healthy", "condition: service_helthy"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
        ("start_period: 60s", "start_period: soon"),
        ("stop_grace_period: 30s", "stop_grace_period: [30]"),
        ("image: postgres:18", "imgae: postgres:18"),
    ],
)
def test_the_specification_is_held_up(right: str, wrong: str) -> None:
    assert right in TEXT
    with pytest.raises(ValueError, match=r"."):
        by_the_specification(TEXT.replace(right, wrong))


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ("TENANTRY_S3_ENDPOINT:", "TENANTRY_S3_URL:", "nobody reads TENANTRY_S3_URL"),
        ("@catalog:5432", "@catalogue:5432", "there is no service catalogue"),
        ("@catalog:5432", "@catalog:5433", "catalog does not listen on 5433"),
        ("store:9000", "store:9001", "store does not listen on 9001"),
        ("pg-a=pg-a:5432", "pg-a=pg-x:5432", "there is no service pg-x"),
        ("secrets/store.json", "secrets/s3.json", "nobody makes /run/secrets/s3.json"),
        ("/run/own/catalog-admin", "/run/own/catalog", "nobody makes /run/own/catalog"),
        ("secrets/admin.password", "secrets/root.password", "nobody makes /run/secrets/root"),
        ("secrets/auth-key", "secrets/key", "store: nobody makes /run/secrets/key"),
        ("/run/secrets:ro", "/run/secret:ro", "nobody makes /run/secrets/"),
        ("pooler-p1:/var/lib/tenantry/pooler", "pooler-p1:/var/lib/p", "is in no volume"),
        ("spool:/var/lib", "spol:/var/lib", "the volume spol is not declared"),
        ("\n  redis:\n  store:\n", "\n  redis:\n  disk:\n  store:\n", "nobody mounts the volume"),
        ("[worker, control,", "[wroker, control,", "the command is refused"),
        ("[worker, transfer,", "[worker, transfers,", "the command is refused"),
        ("health, worker]", "health, api]", "the health of api says nothing of worker"),
        ("health, beat]", "helth, beat]", "beat: there is no health check"),
        ('health, api, --port, "8000"]', 'health, api, --port, "80"]', "asks another port"),
        ("target: pooler", "target: poolers", "the Dockerfile has no stage poolers"),
        ("dockerfile: deploy/Dockerfile", "dockerfile: Dockerfile", "there is no Dockerfile"),
        ("image: tenantry-pooler:", "image: tenantry-poolr:", None),
        ("rclone/rclone:1.75", "minio/minio:latest", "is no image to rely on"),
        ("valkey/valkey:9", "valkey/valkey", "names no version"),
        ("pg-a:/var/lib/postgresql/data", "pg-a:/var/lib/postgresql", "postgres:17 is in"),
        ("pg-b:/var/lib/postgresql", "pg-b:/var/lib/postgresql/data", "postgres:18 is in"),
        ("-cwal_level=logical", "-cwal_level=replica", "wal_level is replica"),
        ("-clog_parameter_max_length_on_error=0", "-cport=5432", "log_parameter_max_length_on"),
        ('"127.0.0.1:8000:8000"', '"8000:8000"', "open to the network"),
        ('"127.0.0.1:6432:6432"', '"127.0.0.1:6432:6433"', "does not listen on 6433"),
        ('  restart: "no"\n  environment', "  restart: always\n  environment", "which goes on"),
        ("      migrate: {cond", "      migration: {cond", "which is no service"),
        ("POSTGRES_PASSWORD_FILE: /run/secrets/admin.password", "POSTGRES_PASSWORD: x", "a secret"),
    ],
)
def test_each_rule_finds_what_breaks_it(right: str, wrong: str, fault: str | None) -> None:
    assert right in TEXT
    found = faults(load(TEXT.replace(right, wrong)), IMAGE)
    if fault is None:  # a consistent new name is no fault
        assert found == []
    else:
        assert any(fault in line for line in found), found


GIVEN = {"TENANTRY_RDS_REGION": "eu-west-1", "TENANTRY_RDS_FILES": "/srv/rds"}
RDS = WITH_RDS.read_text()


def test_with_rds_it_is_a_composition_too_and_everything_fits() -> None:
    together = merged(load(TEXT), load(RDS, **GIVEN))
    by_the_specification(yaml.safe_dump(together))
    assert faults(together, IMAGE) == []
    told = {n for n, s in together["services"].items() if "TENANTRY_RDS_REGION" in environment(s)}
    assert told == {"api", "worker-control", "worker-transfer", "cli"}
    for name in told:
        assert together["services"][name]["volumes"][:-1] == load(TEXT)["services"][name]["volumes"]


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_what_rds_cannot_do_without_is_asked_for(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        load(RDS, **{name: value for name, value in GIVEN.items() if name != missing})


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        (
            "TENANTRY_RDS_SUBNET_GROUP:",
            "TENANTRY_RDS_SUBNETS:",
            "nobody reads TENANTRY_RDS_SUBNETS",
        ),
        ("/run/rds/ca.pem", "/run/authorities/ca.pem", "is in no volume"),
        (":/run/rds:ro", ":/run/aws:ro", "AWS_SHARED_CREDENTIALS_FILE=/run/rds/credentials is in"),
        ("AWS_SHARED_CREDENTIALS_FILE:", "AWS_SECRET_ACCESS_KEY:", "holds a secret"),
        (
            "${TENANTRY_RDS_FILES:?name a directory with ca.pem and credentials}",
            "rds",
            "the volume rds",
        ),
    ],
)
def test_each_rule_finds_what_breaks_rds(right: str, wrong: str, fault: str) -> None:
    assert right in RDS
    found = faults(merged(load(TEXT), load(RDS.replace(right, wrong), **GIVEN)), IMAGE)
    assert any(fault in line for line in found), found


def test_a_service_without_its_health_check_is_found() -> None:
    composition = load(TEXT)
    del composition["services"]["redis"]["healthcheck"]
    assert any("the health of redis, which has no check" in f for f in faults(composition, IMAGE))


def test_our_containers_have_no_right_that_they_do_not_need() -> None:
    ours = {name: s for name, s in load(TEXT)["services"].items() if is_ours(s)}
    assert len(ours) == 13
    for name, service in ours.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert ("user" in service) == (name == "secrets"), name


def test_only_what_works_once_sees_the_secrets_of_others() -> None:
    for name, service in load(TEXT)["services"].items():
        sees_all = any(mount.startswith("secrets-own:") for mount in service.get("volumes", []))
        assert sees_all == (name in {"secrets", "prepare", "migrate", "enrol", "cli"}), name


def test_agents_and_their_poolers_agree() -> None:
    services = load(TEXT)["services"]
    for name in ("p1", "p2"):
        pooler, agent = services[f"pooler-{name}"], services[f"agent-{name}"]
        assert environment(pooler) == environment(agent)
        assert environment(pooler)["TENANTRY_POOLER_HOST"] == f"pooler-{name}"
        assert pooler["volumes"] == agent["volumes"]
        assert f"socket-{name}:/run/tenantry" in pooler["volumes"]


def test_the_spool_can_be_written_wherever_the_doctor_looks() -> None:
    services = load(TEXT)["services"]
    for name in ("api", "worker-control", "worker-transfer", "beat", "cli"):
        assert "spool:/var/lib/tenantry/spool" in services[name]["volumes"], name
