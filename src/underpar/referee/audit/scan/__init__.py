"""Reading scripts for constructs that invalid results were made with. A hit is a suspicion with its line, never a verdict:
static readers of this game have raised false alarms and given false clearances; only a replay proves.
"""
