"""A node: several processes of one machine, each with a device, that are one peer to the swarm.

The *supervisor* is the process that the user started; it starts one process per *rank*. Rank 0, the *leader*, speaks
to the swarm; the others, its *followers*, compute, and hear its orders between two of their micro-batches.
"""
