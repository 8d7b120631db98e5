// Command transfers measures transactions: transfers between two of 10,000 accounts, by package txn/kv over one group of three
// replicas and over two, and by what is there instead: etcd's software transactional memory with three members and with one, and
// bbolt and badger, which replicate nothing. README.md says how to read the figures.
package main
