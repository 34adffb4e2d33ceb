/** Threads that want one monitor, with garbage for the collector, for SECONDS: Contended SECONDS */
public class Contended {
  private static final Object lock = new Object();
  private static long counter;
  private static byte[][] garbage = new byte[256][];

  private static void append(int step) {
    synchronized (lock) {
      for (int i = 0; i < 2000; i++) counter += i ^ step;
      garbage[step & 255] = new byte[16384];
    }
  }

  private static void work(long end) {
    int step = 0;
    while (System.nanoTime() < end) append(step++);
  }

  public static void main(String[] arguments) {
    long end = System.nanoTime() + (long) (Double.parseDouble(arguments[0]) * 1e9);
    for (int i = 0; i < 8; i++) new Thread(() -> work(end), "worker-" + i).start();
    System.out.println("at work");
  }
}
