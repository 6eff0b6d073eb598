"""How much class meaning features carry."""
