// JDBC, with batches that the driver rewrites, COPY, and a cursor.
import java.io.StringReader;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import org.postgresql.PGConnection;

public class Client {
    static Connection connection;

    // The SQLSTATE of a transaction that has inserted a row before.
    static String state(String command, Object... values) throws SQLException {
        try (Statement first = connection.createStatement();
                PreparedStatement failing = connection.prepareStatement(command)) {
            first.execute("INSERT INTO event (what) VALUES ('gone')");
            for (int i = 0; i < values.length; i++)
                failing.setObject(i + 1, values[i]);
            failing.executeUpdate();
            connection.commit();
        } catch (SQLException error) {
            connection.rollback();
            return error.getSQLState();
        }
        return "none";
    }

    static void upsert(int first, int last, int more) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("INSERT INTO price VALUES (?, ?)"
                + " ON CONFLICT (product) DO UPDATE SET price = excluded.price")) {
            for (int n = first; n <= last; n++) {
                statement.setString(1, "p" + n);
                statement.setInt(2, more + n);
                statement.addBatch();
            }
            statement.executeBatch();
        }
        connection.commit();
    }

    // Insert events, and note the ids that come back.
    static void insert(String... events) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement(
                "INSERT INTO event (what) VALUES (?)", new String[] { "id" });
                PreparedStatement note = connection.prepareStatement("INSERT INTO seen VALUES (?)")) {
            for (String event : events) {
                statement.setString(1, event);
                statement.addBatch();
            }
            statement.executeBatch();
            ResultSet ids = statement.getGeneratedKeys();
            while (ids.next()) {
                note.setLong(1, ids.getLong(1));
                note.addBatch();
            }
            note.executeBatch();
        }
        connection.commit();
    }

    public static void main(String[] arguments) throws Exception {
        connection = DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/"
                + System.getenv("PGDATABASE") + "?reWriteBatchedInserts=true&prepareThreshold=1",
                System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.execute(new String(Files.readAllBytes(Paths.get(arguments[0])), "UTF-8"));
        }
        connection.commit();

        insert("one");
        String[] batch = new String[100];
        for (int n = 1; n <= 100; n++)
            batch[n - 1] = "batch " + n;
        insert(batch);

        StringBuilder rows = new StringBuilder();
        for (int n = 1; n <= 1000; n++)
            rows.append("copy ").append(n).append('\n');
        connection.unwrap(PGConnection.class).getCopyAPI()
                .copyIn("COPY event (what) FROM STDIN", new StringReader(rows.toString()));
        connection.commit();

        upsert(1, 50, 0);
        upsert(41, 60, 1000);

        int total = 0;
        try (PreparedStatement by_key = connection.prepareStatement("SELECT price FROM price WHERE product = ?")) {
            for (int n = 1; n <= 60; n++) {
                by_key.setString(1, "p" + n);
                ResultSet found = by_key.executeQuery();
                found.next();
                total += found.getInt(1);
            }
        }
        connection.commit();
        System.out.println("read: " + total);

        System.out.println("duplicate: " + state("INSERT INTO price VALUES ('p1', 1)"));
        System.out.println("check: " + state("INSERT INTO price VALUES (?, ?)", "new", 0));
        System.out.println("given id: " + state("INSERT INTO event (id, what) VALUES (?, ?)", 1L, "mine"));

        try (Statement reader = connection.createStatement()) {
            reader.setFetchSize(50);
            ResultSet events = reader.executeQuery("SELECT * FROM event");
            int fetched = 0;
            while (events.next())
                fetched++;
            System.out.println("fetched: " + fetched);
        }

        try (Statement statement = connection.createStatement()) {
            int changed = statement.executeUpdate("UPDATE event SET what = 'changed' WHERE what = 'batch 1'");
            int deleted = statement.executeUpdate("DELETE FROM event WHERE what = 'batch 2'");
            System.out.println("changed: " + changed + " " + deleted);
        }
        connection.commit();

        ResultSet kind = connection.getMetaData().getTables(null, "public", "event", null);
        kind.next();
        System.out.println("kind: " + kind.getString("TABLE_TYPE"));
        connection.close();
    }
}
