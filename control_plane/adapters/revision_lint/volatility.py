"""Which functions give another answer for the same arguments.

From ``pg_proc.provolatile`` of Postgres 15 and 18: the names of which no overload is immutable
(a name with both kinds, such as ``date_trunc``, cannot be judged without its argument types).
``tests/integration/tenant_server/test_alembic_process.py`` compares them with a real server.
"""

# Another answer for every row: as the default of a new column they rewrite the table.
_VOLATILE = """
    array_sample array_shuffle clock_timestamp current_query currval gen_random_uuid lastval
    nextval pg_notify pg_sleep pg_sleep_for pg_sleep_until random random_normal set_config
    setseed setval timeofday txid_status uuidv4 uuidv7
    """
VOLATILE = frozenset(_VOLATILE.split())
# One answer for a statement, another one tomorrow or for another session.
_STABLE = """
    aclexplode array_to_json array_to_string col_description concat concat_ws convert
    convert_from convert_to current_database current_schema current_schemas current_setting
    current_user enum_first enum_last enum_range format format_type get_current_ts_config
    interval_pl_timestamptz json_agg json_agg_strict json_build_array json_build_object
    json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
    json_populate_record json_populate_recordset json_to_record json_to_recordset jsonb_agg
    jsonb_agg_strict jsonb_build_array jsonb_build_object jsonb_path_exists_tz
    jsonb_path_match_tz jsonb_path_query_array_tz jsonb_path_query_first_tz jsonb_path_query_tz
    jsonb_populate_record jsonb_populate_record_valid jsonb_populate_recordset jsonb_to_record
    jsonb_to_recordset make_timestamptz money mxid_age now obj_description pg_backend_pid
    pg_current_snapshot pg_current_xact_id pg_current_xact_id_if_assigned regclass row_to_json
    session_user shobj_description statement_timestamp system_user timestamptz_mi_interval
    timestamptz_pl_interval to_char to_date to_json to_jsonb to_number to_regclass
    to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure
    to_regrole to_regtype to_regtypemod transaction_timestamp txid_current
    txid_current_if_assigned txid_current_snapshot version xml xml_is_well_formed
    """
STABLE = frozenset(_STABLE.split())
# Functions of extensions that come with Postgres.
VOLATILE_EXTENSIONS = frozenset(
    {"gen_random_bytes", "gen_salt", "uuid_generate_v1", "uuid_generate_v1mc", "uuid_generate_v4"}
)
