/** See services/student/benchmarks. */
import { student } from "./student/run.mjs";

student("iteration");
