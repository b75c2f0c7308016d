#!/bin/bash
# Makes the three accounts of december when MySQL's data folder is new; the MySQL image sources this file and offers
# docker_process_sql. docs/security.md says what each role may do and why. A new password later: ALTER USER.

# What workers may write, by table; never the entries that name the functions which workers run.
december_worker_rights() {
    local table
    for table in __trained_model __trained_model__model_storage __training_summary __test_performance \
        __test_performance__session __feature_covariance __alignment __alignment__session \
        __cluster_assignment __cluster_assignment__session \
        __seed_agreement __label_agreement __consensus __consensus__cluster __consensus__session __cluster_quality \
        __within_model_stability __cluster_confusion __surrogate_agreement __configuration_agreement __mei __mei__neuron \
        __mei_confusion seed_set configuration_pair; do
        echo "$table:INSERT"
    done
    echo "~external_minio:INSERT, UPDATE"
    echo "~jobs:INSERT, UPDATE, DELETE"
    for table in pool pool_worker pool_job; do
        echo "$table:INSERT, UPDATE"
    done
}

december_accounts() {
    local schema pattern admin worker reader
    local everything="SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES"
    schema=${DECEMBER_SCHEMA:-december}
    if ! [[ $schema =~ ^[A-Za-z0-9_]+$ ]]; then
        echo "DECEMBER_SCHEMA is '$schema'; it must be of letters, digits and underscores." >&2
        return 1
    fi
    pattern=${schema//_/\\_} # GRANT takes a bare underscore for any character
    # The secrets go through standard input, never onto a command line. A quote would end the SQL string.
    local secrets=${DECEMBER_SECRETS_FOLDER:-/run/secrets} name
    for name in admin worker reader; do
        local "$name"="$(<"$secrets/${name}_password")"
        if [[ ${!name} == *[\'\\]* ]]; then
            echo "The password in ${name}_password has a quote or a backslash. Choose one without." >&2
            return 1
        fi
    done
    docker_process_sql <<SQL
CREATE DATABASE IF NOT EXISTS \`$schema\`;
CREATE DATABASE IF NOT EXISTS nnfabrik_core;
CREATE USER 'december_admin'@'%' IDENTIFIED BY '$admin';
CREATE USER 'december_worker'@'%' IDENTIFIED BY '$worker';
CREATE USER 'december_reader'@'%' IDENTIFIED BY '$reader';
GRANT $everything ON \`$pattern\`.* TO 'december_admin'@'%';
GRANT $everything ON \`nnfabrik\\_core\`.* TO 'december_admin'@'%';
GRANT SELECT ON \`$pattern\`.* TO 'december_worker'@'%';
GRANT SELECT ON \`nnfabrik\\_core\`.* TO 'december_worker'@'%';
GRANT SELECT ON \`$pattern\`.* TO 'december_reader'@'%';
GRANT SELECT ON \`nnfabrik\\_core\`.* TO 'december_reader'@'%';
$(
        # A right to a table that does not exist yet can only be given together with CREATE.
        december_worker_rights | while IFS=: read -r table rights; do
            echo "GRANT CREATE, $rights ON \`$schema\`.\`$table\` TO 'december_worker'@'%';"
            echo "REVOKE CREATE ON \`$schema\`.\`$table\` FROM 'december_worker'@'%';"
        done
    )
SQL
}

december_accounts
