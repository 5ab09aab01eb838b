// Package crash has the points at which tests kill the program. In every ordinary build they are nothing at all: At is
// an empty function, and On is the constant false, so the compiler leaves out what asks for it. A program built with the
// tag crashpoints kills itself, as `kill -9` does, the first time that it comes to the point named by TALEA_CRASH.
//
// It simulates no other fault and knows nothing of what happens at a point.
//
// # Invariants
//
//   - Without the tag there is no way to switch a point on.
//
// To add a point: a constant here, a call of At at its place, a row in test/kill.
//
// Start reading at the points.
package crash

// Point is a place in the way of a request.
type Point string

// The points, in the order of a request's way.
const (
	Parsed            Point = "parsed"             // the body is read and scanned; nothing is held
	HoldDecided       Point = "hold decided"       // its entry is in a group that is about to be written
	HoldDurable       Point = "hold durable"       // the group is on disk, and nobody has been told
	Held              Point = "held"               // the gateway knows, and has asked no engine
	AttemptFailed     Point = "attempt failed"     // an engine has failed before its first byte, the next is not asked yet
	SettlementDecided Point = "settlement decided" // its entry is in a group that is about to be written
	SettlementDurable Point = "settlement durable" // the group is on disk, and nobody has been told
	Settled           Point = "settled"            // the gateway knows, and has not sent the end of the answer
)
