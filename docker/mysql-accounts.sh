#!/bin/bash
# Makes the three accounts of december when MySQL's data folder is new; the MySQL image sources this file and offers
# docker_process_sql. docs/security.md says what each account may do and why. A new password later: ALTER USER.

december_accounts() {
    local schema pattern admin worker reader
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
GRANT ALL PRIVILEGES ON \`$pattern\`.* TO 'december_admin'@'%';
GRANT ALL PRIVILEGES ON \`nnfabrik\\_core\`.* TO 'december_admin'@'%';
GRANT SELECT, INSERT, UPDATE, DELETE ON \`$pattern\`.* TO 'december_worker'@'%';
GRANT SELECT ON \`nnfabrik\\_core\`.* TO 'december_worker'@'%';
GRANT SELECT ON \`$pattern\`.* TO 'december_reader'@'%';
GRANT SELECT ON \`nnfabrik\\_core\`.* TO 'december_reader'@'%';
SQL
}

december_accounts
