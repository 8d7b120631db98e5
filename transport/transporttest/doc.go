// Package transporttest proves that an implementation of [transport.Transport]
// keeps what that interface promises. Each rule is a subtest whose name states the
// rule.
//
// # Usage
//
// A test says how to make a network, and how to open a node of it:
//
//	func TestTransport(t *testing.T) {
//		transporttest.Run(t, func(t *testing.T) transporttest.Opener {
//			network := mytransport.NewNetwork()
//			return func(node uint64) transport.Transport {
//				tr, err := network.Open(node)
//				require.NoError(t, err)
//				return tr
//			}
//		})
//	}
//
// The optional interfaces, [transport.Bulker] and [transport.Reporter], are tested
// exactly if the transport has them. Run it with the race detector. The example is a
// whole transport of about a page that passes.
//
// # Guarantees
//
// Every rule follows from the comments of package transport. A transport that
// passes serves every package of the library. Since a transport may lose messages,
// the suite sends until something arrives wherever it waits for that; it is
// content with a transport that loses some, not with one that loses all.
//
// # Limits
//
// What a transport does with a hostile peer, a broken network or a bad
// configuration is for its own tests.
package transporttest
