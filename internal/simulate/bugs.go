package main

// raftBugs are mistakes in raft, in internal/replica and in the store's records. Each
// is one line of the code, behind probe.Bug.
var raftBugs = []bug{}

// raftSites are the places that a sweep must reach: all probe.Sometimes in what a raft group
// runs on.
var raftSites = []string{}
