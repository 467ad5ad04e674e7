"""Problems x schedules x machines x repetitions, kept in one file."""
