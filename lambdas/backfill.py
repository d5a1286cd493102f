"""Function Backfill: splits a backfill, works off its shards, ends it; called by the state machine of that name.

    {"backfill": id}                                             what an execution is started with
    {"step": "plan", "backfill": id}
        -> {"backfill": id, "shards": [0, 1, ...]}               those that are not done; none if it was stopped
    {"step": "advance", "backfill": id, "shard": n}              or what it answered last
        -> {"step": "advance", "backfill": id, "shard": n, "rounds": r,
            "done": bool, "stopped": bool, "over": bool, "wait_s": s}
    {"step": "end", "backfill": id, "problem": text}             `problem` if shards failed, else it is left out
        -> {"backfill": id, "state": "running" | "stopped" | "finished"}

A shard's child waits `wait_s` seconds, 0 to 300, and calls again with the answer, until it is `over`: its shard is
done, or cannot go on, or the execution of the child has had as many rounds as its history has room for. Waiting there
costs less than in here. After `end`, a state of `running` means that shards are left: the state machine goes on with
`plan`. What the function raises is noted on the shard, and is worth some tries with a backoff; after that the state
machine calls `end` with the problem, by which the backfill is stopped and says why. It can be resumed.

It may, and needs to:
    s3:ListBucketVersions                                        the content bucket
    s3:ListBucket, s3:GetObject                                  the inventory's bucket, and below its prefix; if set
    dynamodb:GetItem, PutItem, UpdateItem, Query                 the table of backfills (no index)
    sqs:SendMessage                                              BackfillQueue
    sqs:GetQueueAttributes                                       BackfillQueue, BackfillBundlesQueue, BackfillLargeQueue
and the keys of KMS, if these have any. It has no parking lot and no outbox.
"""
