"""Reading parse trees: statements, names, called functions, and the SQL inside of bodies."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import postgast
from postgast import pg_query_pb2 as pg

# protobuf publishes no types: a tree is read by the names of libpg_query's fields.
Message: TypeAlias = Any

_SEMICOLON = pg.Token.Value("ASCII_59")
_OPENING = pg.Token.Value("ASCII_40")
_DOT = pg.Token.Value("ASCII_46")
_STARTERS = (_SEMICOLON, pg.Token.Value("BEGIN_P"), pg.Token.Value("THEN"), pg.Token.Value("ELSE"))
_COMMENTS = (pg.Token.Value("SQL_COMMENT"), pg.Token.Value("C_COMMENT"))
_STRING = pg.Token.Value("SCONST")
_EXECUTE = pg.Token.Value("EXECUTE")
_NO_DYNAMIC = (pg.Token.Value("FUNCTION"), pg.Token.Value("PROCEDURE"), pg.Token.Value("ON"))
_DDL_WORDS = frozenset({"create", "alter", "drop", "truncate", "grant", "revoke", "comment"})


def statements(sql: str) -> list[Message]:
    """The parse trees in ``sql``.

    Raises:
        postgast.PgQueryError: it is not SQL that this version of the parser knows.
    """
    return [postgast.unwrap_node(raw.stmt) for raw in postgast.parse(sql).stmts]


def inner(node: Message) -> Message:
    """The message inside of a ``Node``."""
    return postgast.unwrap_node(node)


def inside(node: Message, kind: type) -> Iterator[Message]:
    """Every message of ``kind`` in the tree, the root included."""
    return (found for _, found in postgast.walk(node) if isinstance(found, kind))


def words(nodes: Iterable[Message]) -> tuple[str, ...]:
    """The texts of a list of ``String``."""
    return tuple(inner(node).sval for node in nodes)


def relation_name(relation: Message) -> str:
    """``schema.table``; one without a schema is what a plain template finds: in ``public``."""
    return f"{relation.schemaname or 'public'}.{relation.relname}"


def dotted(parts: tuple[str, ...]) -> str:
    """``schema.name`` of a name given as a list, with ``public`` where there is no schema."""
    return ".".join(parts[-2:] if len(parts) > 1 else ("public", *parts))


def options(elements: Iterable[Message]) -> dict[str, Message]:
    """``DefElem`` by name; the value of one that stands alone is ``None``."""
    found = {}
    for element in map(inner, elements):
        found[element.defname] = inner(element.arg) if element.HasField("arg") else None
    return found


def is_on(given: dict[str, Message], name: str) -> bool:
    """Whether an option in parentheses is there and is not switched off."""
    value = given.get(name)
    said = getattr(value, "sval", "") or str(getattr(value, "boolval", ""))
    return name in given and said.lower() not in {"false", "off", "0"}


def called(node: Message) -> set[str]:
    """Names of the functions that are called, as written; CURRENT_DATE and such in lower case."""
    names = {".".join(words(call.funcname)) for call in inside(node, pg.FuncCall)}
    for value in inside(node, pg.SQLValueFunction):
        names.add(pg.SQLValueFunctionOp.Name(value.op).removeprefix("SVFOP_").lower())
    return names


def body_calls(create: Message) -> set[str]:
    """What the body of a CREATE FUNCTION calls, in SQL or by the tokens of any other language."""
    if create.HasField("sql_body"):
        return called(create.sql_body)
    given = options(create.options)
    text = _body(given)
    if getattr(given.get("language"), "sval", "").lower() == "sql":
        try:
            return set().union(*map(called, statements(text)))
        except postgast.PgQueryError:
            pass
    return _token_calls(text)


def do_body(block: Message) -> str:
    """The text of a DO block."""
    return _body(options(block.args))


def fragments(body: str) -> list[Message]:
    """The SQL statements of a PL/pgSQL body.

    Everything between two of ``; BEGIN THEN ELSE LOOP`` that the SQL grammar accepts. libpg_query
    has a PL/pgSQL parser too, which refuses every body with a type or table it does not know.
    """
    text = body.encode()
    tokens = _tokens(body)
    starts = [0] + [t.end for t in tokens if t.token in _STARTERS or _word(text, t) == "loop"]
    ends = [t.start for t in tokens if t.token == _SEMICOLON]
    found: list[Message] = []
    for start in starts:
        end = next((end for end in ends if end >= start), len(text))
        found += _parsed(text[start:end].decode())
    return found


def dynamic_ddl(body: str) -> bool:
    """Whether a PL/pgSQL body executes text with a word of DDL in it, or text nobody can see."""
    tokens = _tokens(body)
    following = zip(tokens, [t.token for t in tokens[1:]], strict=False)
    if not any(t.token == _EXECUTE and then not in _NO_DYNAMIC for t, then in following):
        return False
    text = body.encode()
    constants = [_word(text, t) for t in tokens if t.token == _STRING]
    spoken = {word.strip("'\"$();") for constant in constants for word in constant.split()}
    return not constants or not spoken.isdisjoint(_DDL_WORDS)


def _parsed(fragment: str) -> list[Message]:
    head = fragment.split(None, 1)[:1]
    # END closes a block; to the SQL grammar it is COMMIT.
    if not head or head[0].lower() in {"begin", "end"}:
        return []
    try:
        return statements(fragment)
    except postgast.PgQueryError:
        return []


def _body(given: dict[str, Message]) -> str:
    text = given.get("as")
    if text is None:
        return ""
    return " ".join(words(text.items)) if isinstance(text, pg.List) else str(text.sval)


def _token_calls(body: str) -> set[str]:
    text = body.encode()
    names, name = set(), ""
    for token in _tokens(body):
        if token.token == _OPENING and name:
            names.add(name)
        word = _word(text, token)
        if token.token == _DOT or name.endswith("."):
            name += word
        else:
            name = word
        # CURRENT_DATE and its like stand without parentheses; after a dot it is a column.
        if token.keyword_kind and "." not in name:
            names.add(word)
    return names


def _tokens(body: str) -> list[Message]:
    try:
        found = postgast.scan(body).tokens
    except postgast.PgQueryError:
        return []
    return [token for token in found if token.token not in _COMMENTS]


def _word(text: bytes, token: Message) -> str:
    return text[token.start : token.end].decode().lower()
