"""The small problems of T numbers that methods solve: functions of arrays."""
