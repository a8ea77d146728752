"""What is counted, and what is made of it: figures over time, trends, alerts, health. Decides nothing for a client."""
