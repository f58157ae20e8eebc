"""Train control policies with deep reinforcement learning, compress them, and send them to small computers."""
