"""The parameter group of RDS instances: what enrolment asks of a server, in the units of RDS."""

from collections.abc import Mapping

FAMILY = "postgres{}"
# All take effect with the instance's first start. One call changes at most 20 of them.
PARAMETERS: Mapping[str, str] = {
    "rds.logical_replication": "1",
    "rds.force_ssl": "1",
    "password_encryption": "scram-sha-256",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_logical_replication_workers": "10",
    "max_worker_processes": "20",
    "max_slot_wal_keep_size": "4096",
    "autovacuum_naptime": "600",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "shared_preload_libraries": "pg_stat_statements",
}
