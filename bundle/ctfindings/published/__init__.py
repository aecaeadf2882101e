"""Models published by other groups. Configs name what they load by its full path; nothing is imported from here."""
