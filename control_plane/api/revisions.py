"""Revisions over HTTP: a template compiled to SQL, and what the lint says about it."""

from collections.abc import Sequence

import msgspec

from control_plane.adapters.revision_lint import LintFinding
from control_plane.adapters.revisions import Revision, readable_sql
from control_plane.domain.errors import Conflict, SchemaMismatch
from control_plane.services import rollouts
from control_plane.services.ports import Ports
from control_plane.services.rollouts import Compiled


class RevisionView(msgspec.Struct, frozen=True):
    """One revision; ``sql`` names a tenant's roles owner, app, auditor and reader.

    ``transactional``: all of it is one transaction. ``runs_python``: Alembic runs it, and its
    SQL cannot be known beforehand. ``privileged``: it runs as the server's administrator.
    """

    id: str
    title: str
    transactional: bool
    privileged: bool
    runs_python: bool
    sql: list[str]


class LintFindingView(msgspec.Struct, frozen=True):
    """What one statement would do to a database in use, and the safe form.

    ``statement`` counts from 1; 0 is the revision as a whole. ``overridden`` is the reason that
    the revision records; a finding without one refuses the rollout.
    """

    revision: str
    statement: int
    rule: str
    message: str
    remedy: str
    overridden: str | None


async def compile_now(ports: Ports, template: str, revision: str | None) -> Compiled:
    """The template's files as they are now.

    Raises:
        Invalid: there is no such template or revision.
        Conflict: the files are broken at the moment; the message says where.
    """
    try:
        return await rollouts.compile_template(ports, template, revision)
    except SchemaMismatch as error:
        raise Conflict(error.message) from error


def revision_views(revisions: Sequence[Revision]) -> list[RevisionView]:
    """The JSON of revisions, in their order."""
    return [
        RevisionView(
            id=revision.id,
            title=revision.title,
            transactional=revision.transactional,
            privileged=revision.privileged,
            runs_python=revision.runs_python,
            sql=readable_sql(revision),
        )
        for revision in revisions
    ]


def finding_views(findings: Sequence[LintFinding]) -> list[LintFindingView]:
    """The JSON of findings: first those that refuse, then those that are overridden."""
    return [
        LintFindingView(
            revision=finding.revision,
            statement=finding.statement_number,
            rule=finding.rule,
            message=finding.message,
            remedy=finding.remedy,
            overridden=finding.overridden,
        )
        for finding in sorted(findings, key=lambda f: f.overridden is not None)
    ]
