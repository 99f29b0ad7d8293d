"""The board as static files: `evalkit leaderboard --export DIR`."""
