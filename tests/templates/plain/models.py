"""What the application's own package would be."""

from sqlalchemy import MetaData

metadata = MetaData()
