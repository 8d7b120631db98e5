module github.com/synod-go/synod/bench/hashring

go 1.26

require (
	github.com/buraksezer/consistent v0.10.0
	github.com/dgryski/go-maglev v0.0.0-20200611225407-8961b9b1b8e6
	github.com/edwingeng/doublejump v1.0.1
	github.com/golang/groupcache v0.0.0-20241129210726-2c02b8208cf8
	github.com/kkdai/maglev v0.2.0
	github.com/lithammer/go-jump-consistent-hash v1.0.2
	github.com/serialx/hashring v0.0.0-20200727003509-22c0c7ab6b1b
	github.com/synod-go/synod v0.0.0
	github.com/zeromicro/go-zero v1.10.3
	stathat.com/c/consistent v1.0.0
)

require (
	github.com/dchest/siphash v1.2.2 // indirect
	github.com/dgryski/go-jump v0.0.0-20170409065014-e1f439676b57 // indirect
	github.com/spaolacci/murmur3 v1.1.0 // indirect
)

replace github.com/synod-go/synod => ../..
