"""X-rays by codes that are learnt from their findings (Haq, Moradi & Wang)."""
