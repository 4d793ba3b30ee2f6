package probe

import "time"

// Both statements give id, host, port, whether it is the writer, whether it is the server that answers, and milliseconds of lag.
const (
	// Rows of instances that are gone stay for a while: what was not heard of for five minutes is left out.
	auroraTopology = `SELECT server_id, NULL, NULL, session_id = 'MASTER_SESSION_ID', server_id = aurora_db_instance_identifier(),
		replica_lag_in_msec::bigint FROM aurora_replica_status()
		WHERE session_id = 'MASTER_SESSION_ID' OR last_update_timestamp IS NULL OR last_update_timestamp > now() - interval '5 min'`
	rdsTopology = `SELECT id, endpoint, port, id = rds_tools.multi_az_db_cluster_source_dbi_resource_id(),
		id = rds_tools.dbi_resource_id(), NULL FROM rds_tools.show_topology('pgsidecar')`
)

// readTopology reads the rows of either.
func (o *Observation) readTopology(rows [][]string) error {
	for _, row := range rows {
		r := reader{row: row}
		m := Member{ID: r.text(), Host: r.text(), Port: uint16(r.signed()), Writer: r.boolean(), Self: r.boolean()}
		m.Lag = time.Duration(r.signed()) * time.Millisecond
		if r.err != nil {
			return r.err
		}
		o.Topology = append(o.Topology, m)
	}
	return nil
}
