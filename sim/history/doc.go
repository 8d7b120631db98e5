// Package history checks what the clients of a replicated system saw: whether there is
// one order of all calls, each between its beginning and its end, in which a single,
// sequential machine would have given the same answers. That is linearizability (Herlihy and Wing,
// "Linearizability: A Correctness Condition for Concurrent Objects", 1990). The search is
// porcupine's.
//
// # Usage
//
//	h := history.New(history.Registers)
//	…
//	call := h.Begin(client, history.Write("a", 7))
//	switch old, err := …; {
//	case err == nil:
//		call.Return(old)
//	case errors.Is(err, synod.ErrUnknownOutcome):
//		// nothing: it may take effect at any time from its beginning on, or never
//	default:
//		call.Refused()
//	}
//	…
//	if err := h.Check(time.Minute); err != nil { … }
//
// A [Model] of your own describes your state machine. Histories fall into parts by key, which are
// checked one by one: that is what makes it fast, since the search is exponential in
// what is under way at a time, calls of unknown outcome included.
//
// # Guarantees
//
// The order of the calls of Begin, Return and Refused is taken for that of the events, and so
// they belong to one thread at a time, as the tasks of a simulation do. A call that was refused
// must have had no effect: whoever sees one makes the check fail. An answer that was
// not found within the time is an error, too ([ErrInconclusive]).
//
// # Limits
//
// Histories are kept in memory. A thousand calls a key with a few of unknown outcome take
// milliseconds; hundreds of unknown outcomes on one key may not be answered at all.
package history
