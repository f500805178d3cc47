"""Reports: what the clinic's dashboards read, computed ahead and refreshed by the control plane.

Without PHI: counts, sums and ids of providers, specialties and cities. Each view has a unique index
over plain columns and all rows, which REFRESH CONCURRENTLY needs (55000 otherwise), and says in
``refreshed_at`` how old it is. Days and months are those of UTC.
"""

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE SCHEMA reports;
GRANT USAGE ON SCHEMA reports TO {app}, {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA reports GRANT SELECT ON TABLES TO {app}, {reader};
"""

# By the month of the appointment, so that a late payment does not move what was earned when.
PROVIDER_REVENUE = """
CREATE MATERIALIZED VIEW reports.provider_revenue AS
SELECT a.provider_id,
       CAST(date_trunc('month', a.appointment_at AT TIME ZONE 'UTC') AS date) AS month,
       p.currency,
       count(*) FILTER (WHERE p.status = 'paid') AS paid_payments,
       coalesce(sum(p.amount) FILTER (WHERE p.status = 'paid'), 0) AS paid,
       coalesce(sum(p.amount) FILTER (WHERE p.status = 'pending'), 0) AS pending,
       coalesce(sum(p.amount) FILTER (WHERE p.status = 'refunded'), 0) AS refunded,
       now() AS refreshed_at
  FROM bookings.payment p
  JOIN bookings.appointment a ON a.id = p.appointment_id
 WHERE p.deleted_at IS NULL AND a.deleted_at IS NULL
 GROUP BY a.provider_id, month, p.currency;
CREATE UNIQUE INDEX provider_revenue_key ON reports.provider_revenue (provider_id, month, currency);
"""

BOOKING_TRENDS = """
CREATE MATERIALIZED VIEW reports.booking_trends AS
SELECT CAST(a.appointment_at AT TIME ZONE 'UTC' AS date) AS day,
       a.status,
       v.specialty_id,
       count(*) AS appointments,
       count(DISTINCT a.provider_id) AS providers,
       now() AS refreshed_at
  FROM bookings.appointment a
  JOIN providers.provider v ON v.id = a.provider_id
 WHERE a.deleted_at IS NULL
 GROUP BY day, a.status, v.specialty_id;
CREATE UNIQUE INDEX booking_trends_key ON reports.booking_trends (day, status, specialty_id);
"""

# A provider counts, with all appointments, in each of its specialties.
MARKETPLACE_HEALTH = """
CREATE MATERIALIZED VIEW reports.marketplace_health AS
WITH practices AS (
    SELECT specialty_id, id AS provider_id FROM providers.provider WHERE deleted_at IS NULL
    UNION
    SELECT specialty_id, provider_id FROM providers.provider_specialty WHERE deleted_at IS NULL
), booked AS (
    SELECT a.provider_id,
           count(*) FILTER (WHERE a.status = 'confirmed' AND a.appointment_at > now()) AS upcoming,
           count(*) FILTER (WHERE a.status = 'completed') AS completed,
           count(r.rating) AS ratings,
           sum(r.rating) AS stars
      FROM bookings.appointment a
      LEFT JOIN bookings.review r ON r.appointment_id = a.id AND r.deleted_at IS NULL
     WHERE a.deleted_at IS NULL
     GROUP BY a.provider_id
)
SELECT s.specialty_id,
       v.city_id,
       count(*) AS providers,
       count(*) FILTER (WHERE v.is_available) AS available_providers,
       CAST(coalesce(sum(b.upcoming), 0) AS bigint) AS upcoming,
       CAST(coalesce(sum(b.completed), 0) AS bigint) AS completed,
       round(sum(b.stars) / nullif(sum(b.ratings), 0), 2) AS average_rating,
       now() AS refreshed_at
  FROM practices s
  JOIN providers.provider v ON v.id = s.provider_id AND v.deleted_at IS NULL
  LEFT JOIN booked b ON b.provider_id = v.id
 GROUP BY s.specialty_id, v.city_id;
CREATE UNIQUE INDEX marketplace_health_key
    ON reports.marketplace_health (specialty_id, city_id);
"""

# What 0002 left for later: a scan that lets everybody read and write meanwhile.
UNVALIDATED = (
    "public.city",
    "public.specialty",
    "providers.provider",
    "providers.provider_specialty",
    "providers.service",
    "providers.availability",
    "patients.patient",
    "patients.preference",
    "patients.health_condition",
    "bookings.appointment",
    "bookings.payment",
    "bookings.review",
)


def upgrade() -> None:
    roles: dict[str, str] = context.config.attributes["roles"]
    quote = op.get_context().dialect.identifier_preparer.quote
    op.execute(SCHEMA.format(app=quote(roles["app"]), reader=quote(roles["reader"])))
    op.execute(PROVIDER_REVENUE)
    op.execute(BOOKING_TRENDS)
    op.execute(MARKETPLACE_HEALTH)
    for table in UNVALIDATED:
        name = table.partition(".")[2]
        op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}_deleted_reason_check")
    op.execute(
        "ALTER TABLE patients.health_condition "
        "VALIDATE CONSTRAINT health_condition_clinical_status_check"
    )


def downgrade() -> None:
    op.execute("DROP MATERIALIZED VIEW reports.marketplace_health")
    op.execute("DROP MATERIALIZED VIEW reports.booking_trends")
    op.execute("DROP MATERIALIZED VIEW reports.provider_revenue")
    op.execute("DROP SCHEMA reports")
