package postgres

func child() {}
