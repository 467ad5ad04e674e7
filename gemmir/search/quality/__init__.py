"""How good the cost model is: measured schedules, and how the model ranks them."""
