package postgres_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/synod-go/synod/storage/pebble"
	"github.com/synod-go/synod/transport/inproc"
	"github.com/synod-go/synod/txn"
	"github.com/synod-go/synod/txn/files"
	"github.com/synod-go/synod/txn/postgres"
)

// An order is a row, and its document a file: there are both, or none. It is compiled only, as it needs a server.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pool, err := pgxpool.ParseConfig("postgres://shop@localhost/shop")
	if err != nil {
		panic(err)
	}
	orders, err := postgres.Open(ctx, postgres.Config{Cluster: "shop", Node: 1, Resource: "orders", Pool: pool})
	if err != nil {
		panic(err) // a *postgres.ServerError, if max_prepared_transactions is 0
	}
	defer orders.Close()
	documents, err := files.Open(ctx, files.Config{Dir: "documents"})
	if err != nil {
		panic(err)
	}
	defer documents.Close()
	network, err := inproc.New(ctx, inproc.Config{}) // between machines: tcp.Listen
	if err != nil {
		panic(err)
	}
	transport, err := network.Open(1)
	if err != nil {
		panic(err)
	}
	defer transport.Close()
	store, err := pebble.Open(pebble.Config{Dir: "transactions"})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	manager, err := txn.Start(ctx, txn.Config{Cluster: "shop", Node: 1, Transport: transport, Store: store,
		Resources: map[string]txn.Resource{"orders": orders, "documents": documents}})
	if err != nil {
		panic(err)
	}
	defer manager.Close()

	tx, err := manager.Begin(ctx)
	if err != nil {
		panic(err)
	}
	sql, err := orders.Begin(ctx, tx.ID())
	if err != nil {
		panic(err)
	}
	var number int
	if err := sql.QueryRow(ctx, "INSERT INTO orders (item) VALUES ($1) RETURNING number", "chair").Scan(&number); err != nil {
		panic(err)
	}
	document, err := documents.Begin(ctx, tx.ID())
	if err != nil {
		panic(err)
	}
	if err := document.WriteFile(fmt.Sprintf("orders/%d.txt", number), []byte("a chair")); err != nil {
		panic(err)
	}
	err = tx.Commit(ctx, txn.Participant{Node: 1, Resource: "orders"}, txn.Participant{Node: 1, Resource: "documents"})
	fmt.Println("committed:", err)
}

// What is wrong with a configuration, or with a server, is known before anything is promised.
func ExampleOpen() {
	pool, err := pgxpool.ParseConfig("postgres://shop@localhost/shop")
	if err != nil {
		panic(err)
	}
	_, err = postgres.Open(context.Background(), postgres.Config{Cluster: "shop", Resource: "orders", Pool: pool})
	fmt.Println(err)
	fmt.Println(&postgres.ServerError{Setting: "max_prepared_transactions", Value: "0", Remedy: "set it in postgresql.conf"})
	// Output:
	// postgres: Config.Node: missing: the ID of the manager's node
	// postgres: the server has max_prepared_transactions = 0: set it in postgresql.conf
}
