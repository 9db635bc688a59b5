"""Who is on the bus: workers by their presence and stats, and what keeps an answer from coming."""
